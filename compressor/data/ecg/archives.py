"""ECGs of two small public collections that were repacked as .npz files: LUDB, and a sample of CinC 2021.

Nothing is downloaded: the caller names a file. Pickled objects in it are refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from compressor.data.archive import Archive, open_archive
from compressor.data.ecg.collecting import Collection, collect
from compressor.data.ecg.diagnoses import RHYTHM_CLASSES
from compressor.data.ecg.recordings import LEADS, Recording, Recordings
from compressor.errors import FileError, InputError

__all__ = ["LUDB_RHYTHM_CLASSES", "load_cinc2021_npz", "load_ludb_npz"]

_LUDB_ARRAYS = ("adc", "gain", "baseline", "rhythm", "rhythm_names", "leads", "fs")
_SAMPLES = 5000
_SAMPLING_HZ = 500

LUDB_RHYTHM_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "Sinus bradycardia": "SB",
        "Atrial fibrillation": "AFIB",
        "Atrial flutter": "AFIB",
        "Sinus tachycardia": "GSVT",
        "Sinus rhythm": "SR",
        "Sinus arrhythmia": "SR",
        "Irregular sinus rhythm": "SR",
    }
)
"""The class of the four for each rhythm of LUDB, as `RHYTHM_DIAGNOSES` groups them."""


def load_ludb_npz(
    path: str | os.PathLike[str],
    *,
    grouping: Mapping[str, str] | None = LUDB_RHYTHM_CLASSES,
    file_gains: bool = False,
) -> Recordings:
    """The 200 recordings of LUDB, ten seconds at 500 Hz, one for each person.

    `grouping` maps the file's rhythms to classes: SB 25, AFIB 18, GSVT 4, SR 153 with the one given; None
    keeps the rhythms themselves, seven classes. Three recordings have a wandering atrial pacemaker beside
    their sinus rhythm; that rhythm counts, as in the file.

    The file holds `adc` (int16 [200, 12, 5000]), `gain` and `baseline` [200, 12], `rhythm`, `rhythm_names`,
    `leads` and `fs`. **Signals are the converter's counts by one scale, 1 µV, not by the file's gains.** Each
    gain there is the range of its own lead, so every lead spans 1 "mV", and III differs from II − I by half
    of its size (`limb_lead_error`); the counts obey Einthoven's law to the last one. How much a count
    really is the file does not say: the scale of a recording is taken out later (`normalize_recordings`),
    ratios of leads are not. `file_gains` takes the published gains and baselines all the same.

    *Source: A. Kalyakulina, I. Yusipov, V. Moskalenko, A. Nikolskiy, K. Kosonogov, G. Osipov, N. Zolotykh,
    M. Ivanchenko 2020, "LUDB: A New Open-Access Validation Tool for Electrocardiogram Delineation
    Algorithms", IEEE Access 8, doi 10.1109/ACCESS.2020.3029211 (ODC-BY 1.0).* Raises FileError for a file
    that is missing, damaged or laid out otherwise, InputError for a rhythm that `grouping` lacks.
    """
    archive = open_archive(Path(path), "LUDB", _LUDB_ARRAYS)
    counts = _signals(archive, "adc")
    gain, baseline = (_of_leads(archive, name, len(counts)) for name in ("gain", "baseline"))
    millivolts = (counts - baseline) / gain if file_gains else counts / np.float32(1000)
    labels, classes = _ludb_labels(archive, len(counts), grouping)
    return Recordings(
        signals_mV=torch.from_numpy(millivolts.astype(np.float32)[:, _lead_order(archive)]),
        labels=labels,
        names=tuple(f"ludb{number:03d}" for number in range(1, len(counts) + 1)),
        classes=classes,
        sampling_hz=_SAMPLING_HZ,
        subjects=torch.arange(len(counts)),
    )


def load_cinc2021_npz(
    path: str | os.PathLike[str], *, prefix: str = "", skip_broken: bool = False
) -> Collection:
    """The recordings of a sample of the PhysioNet/CinC challenge of 2021 whose names begin with `prefix`.

    JS is the corpus of Ningbo, which the four classes come from; E Georgia, HR PTB-XL; all, without it.
    Labels and what is left out are those of `read_recordings`. The file holds `adc_uV` (int16 [N, 12,
    5000], microvolt, leads in the order of `LEADS`), `record`, `dx_snomed` (codes with commas) and `fs`. In
    the known sample of 50, JS20004 and JS20008 have flat leads, and E07509 and E07510 are one recording
    under two names (`Recordings.duplicates`).

    *Source: M. Reyna et al. 2021, "Will Two Do? Varying Dimensions in Electrocardiography", Computing in
    Cardiology 48 (PhysioNet, CC BY 4.0).* Raises FileError for a file that is missing, damaged or laid out
    otherwise, for broken recordings, and where nothing is left.
    """
    archive = open_archive(Path(path), "CinC 2021", ("adc_uV", "record", "dx_snomed", "fs"))
    counts = _signals(archive, "adc_uV")
    names = _strings(archive, "record", len(counts))
    codes = _strings(archive, "dx_snomed", len(counts))
    return collect(
        (
            Recording(
                name=name,
                signals_mV=torch.from_numpy(signals.astype(np.float32)) / 1000,
                sampling_hz=_SAMPLING_HZ,
                diagnoses=tuple(of_recording.split(",")),
            )
            for name, signals, of_recording in zip(names, counts, codes, strict=True)
            if name.startswith(prefix)
        ),
        source=archive.name,
        sampling_hz=_SAMPLING_HZ,
        samples=_SAMPLES,
        skip_broken=skip_broken,
    )


def _ludb_labels(
    archive: Archive, count: int, grouping: Mapping[str, str] | None
) -> tuple[Tensor, tuple[str, ...]]:
    """The labels, and the names of the classes."""
    rhythms = tuple(str(name) for name in archive.arrays["rhythm_names"])
    labels = archive.numbers("rhythm", count)
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < len(rhythms):
        raise FileError(f"{archive.name}: rhythm must hold positions in the {len(rhythms)} rhythm_names")
    if grouping is None:
        return labels, rhythms
    lacking = [name for name in rhythms if name not in grouping]
    if lacking:
        raise InputError(f"load_ludb_npz: grouping has no class for {', '.join(lacking)}")
    named = tuple(dict.fromkeys(grouping.values()))
    classes = RHYTHM_CLASSES if set(named) <= set(RHYTHM_CLASSES) else named
    of_rhythm = torch.tensor([classes.index(grouping[name]) for name in rhythms])
    return of_rhythm[labels], classes


def _signals(archive: Archive, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    stored = archive.arrays[name]
    if stored.dtype != np.int16 or stored.ndim != 3 or stored.shape[1:] != (len(LEADS), _SAMPLES):
        raise FileError(
            f"{archive.name}: {name} must be int16 [N, 12, {_SAMPLES}], "
            f"got {stored.dtype} {list(stored.shape)}"
        )
    rate = archive.arrays["fs"]
    if rate.size != 1 or rate.item() != _SAMPLING_HZ:
        raise FileError(f"{archive.name}: fs must be {_SAMPLING_HZ} (Hz), got {rate.tolist()}")
    return stored.astype(np.int16, copy=False)


def _of_leads(archive: Archive, name: str, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A number for each lead, [N, 12, 1]."""
    stored = archive.arrays[name]
    if stored.dtype.kind not in "if" or stored.shape != (count, len(LEADS)):
        raise FileError(
            f"{archive.name}: {name} must hold numbers [{count}, 12], got {stored.dtype} {list(stored.shape)}"
        )
    return stored.astype(np.float32)[:, :, None]


def _strings(archive: Archive, name: str, count: int) -> list[str]:
    stored = archive.arrays[name]
    if stored.dtype.kind != "U" or stored.shape != (count,):
        raise FileError(
            f"{archive.name}: {name} must hold {count} strings, got {stored.dtype} {list(stored.shape)}"
        )
    return [str(text) for text in stored]


def _lead_order(archive: Archive) -> list[int]:
    """Where each of LEADS is among the file's."""
    found = [str(name).lower() for name in archive.arrays["leads"].ravel()]
    if sorted(found) != sorted(lead.lower() for lead in LEADS):
        raise FileError(f"{archive.name}: leads must be {' '.join(LEADS)}, got {' '.join(found)}")
    return [found.index(lead.lower()) for lead in LEADS]
