"""ECGs from WFDB files (.hea beside .mat or .dat), read by the wfdb library and put into one form.

The arrhythmia corpus of Chapman, Shaoxing and Ningbo (J. Zheng, H. Guo, H. Chu 2022, PhysioNet,
doi 10.13026/wgex-er52) holds `WFDBRecords/NN/NNN/JSxxxxx.hea` with MATLAB level-4 files beside them; other
corpora of PhysioNet are read as well. Nothing is downloaded: the caller names files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from compressor.data.ecg.collecting import Collection, LeftOut, collect
from compressor.data.ecg.quality import Fault, QualityLimits
from compressor.data.ecg.recordings import LEADS, Recording
from compressor.errors import FileError, InputError
from compressor.extras import imported

if TYPE_CHECKING:
    import wfdb

__all__ = ["read_recording", "read_recordings"]

Signals = npt.NDArray[np.floating]
_MILLIVOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}  # both signs for micro


def read_recording(
    path: str | os.PathLike[str], *, sampling_hz: int = 500, resample: bool = False
) -> Recording:
    """The recording of a header file, in millivolt, its leads in the order of `LEADS`, at `sampling_hz`.

    `path` names the .hea file, with or without that ending. Leads are found by their names in either case,
    and leads beyond the twelve are passed over. Gain, baseline and format are the wfdb library's; units V,
    mV, uV and nV are converted; a checksum in the header is compared with the samples. Samples marked as
    not measured are NaN. Another sampling rate is an error, unless `resample` asks for a polyphase filter
    (`scipy.signal.resample_poly`, ends continued along a line). The length is the file's. Codes come from
    the header's line `Dx:`.

    Raises FileError, which names the file, for files that are missing or unreadable, a checksum that differs,
    missing leads, leads in other units, and another sampling rate; MissingExtraError without wfdb.
    """
    file = _header(path)
    try:
        return _read(file, sampling_hz, resample=resample)
    except _FaultyError as fault:
        raise FileError(f"ECG file {file}: {fault.kind.value}: {fault}") from fault.__cause__


def read_recordings(
    folder: str | os.PathLike[str],
    *,
    sampling_hz: int = 500,
    seconds: float = 10.0,
    resample: bool = False,
    limits: QualityLimits | None = None,
    skip_broken: bool = False,
    progress: bool = False,
) -> Collection:
    """All recordings under a folder, labelled by their diagnoses, and those left out with the reasons.

    Every .hea file under `folder` is read as `read_recording` reads it, judged by `signal_fault` (`limits`),
    labelled by `rhythm_classes`, and padded with zeros or cropped to its middle to last `seconds`. What is
    broken is an error that names all such files, or, with `skip_broken`, is left out and named in
    `left_out`. Sound recordings of none or several of the four classes are always left out and named.
    `progress` draws a bar.

    A recording is named after its file, or by its path in `folder` where two files have one name. Ten
    seconds take 240 kB, the 45,152 recordings of the corpus 10.8 GB.

    Raises FileError for a folder that is missing or holds no header, for broken recordings, and where
    nothing is left; MissingExtraError without wfdb.
    """
    where = Path(folder)
    if not where.is_dir():
        raise FileError(f"ECG folder {where}: no such folder")
    files = sorted(where.rglob("*.hea"))
    if not files:
        raise FileError(
            f"ECG folder {where}: holds no .hea file, neither itself nor its folders; "
            "name the folder that WFDBRecords was unpacked to"
        )
    _wfdb()
    names = _names(files, where)
    bar = tqdm(names.items(), desc="ECG files", unit="file", leave=False, disable=not progress)
    return collect(
        _each(bar, sampling_hz, resample=resample),
        source=f"ECG folder {where}",
        sampling_hz=sampling_hz,
        samples=round(seconds * sampling_hz),
        limits=limits,
        skip_broken=skip_broken,
    )


class _FaultyError(Exception):
    """A file that cannot be taken, and of what kind its fault is."""

    def __init__(self, kind: Fault, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def _each(
    files: Iterable[tuple[Path, str]], sampling_hz: int, *, resample: bool
) -> Iterator[Recording | LeftOut]:
    for file, name in files:
        try:
            yield replace(_read(file, sampling_hz, resample=resample), name=name)
        except _FaultyError as fault:
            yield LeftOut(name, fault.kind, str(fault))


def _names(files: Sequence[Path], folder: Path) -> dict[Path, str]:
    """A name for each file that no other has."""
    stems = {file.stem for file in files}
    if len(stems) == len(files):
        return {file: file.stem for file in files}
    return {file: file.relative_to(folder).with_suffix("").as_posix() for file in files}


def _header(path: str | os.PathLike[str]) -> Path:
    """The header file; `path` may lack the ending."""
    file = Path(path)
    return file if file.suffix == ".hea" else file.with_name(file.name + ".hea")


def _read(file: Path, sampling_hz: int, *, resample: bool) -> Recording:
    if sampling_hz < 1:
        raise InputError(f"sampling_hz must be positive, got {sampling_hz}")
    record, physical = _record(file)
    rows = _lead_rows(record)
    _check_sums(record, rows)
    signals = _in_millivolt(record, physical, rows)
    rate = Fraction(record.fs).limit_denominator(1000)
    if rate != sampling_hz:
        if not resample:
            raise _FaultyError(
                Fault.SAMPLING_RATE,
                f"expected {sampling_hz} Hz, got {record.fs:g} Hz; resample=True converts it",
            )
        signals = _resampled(signals, Fraction(sampling_hz) / rate)
    return Recording(
        name=file.stem,
        signals_mV=torch.from_numpy(np.ascontiguousarray(signals, dtype=np.float32)),
        sampling_hz=sampling_hz,
        diagnoses=_diagnoses(record),
    )


def _record(file: Path) -> tuple[wfdb.Record, Signals]:
    """The record with its samples as the converter counted them, and those in its units, [T, leads]."""
    library = _wfdb()
    if not file.is_file():
        raise _FaultyError(Fault.UNREADABLE, "no such file")
    try:
        record = library.rdrecord(str(file.absolute().with_suffix("")), physical=False)
        physical: Signals | None = None if record.d_signal is None else record.dac()
    except Exception as error:  # a damaged file raises what numpy, int() or the library's parser raise
        raise _FaultyError(
            Fault.UNREADABLE,
            f"the wfdb library cannot read it ({type(error).__name__}: {error}); the file of samples may "
            "be missing, truncated or not what the header says",
        ) from error
    if not isinstance(record, library.Record) or physical is None:
        raise _FaultyError(Fault.UNREADABLE, "holds no signals, or several segments; one segment is read")
    if set(record.samps_per_frame) != {1}:
        raise _FaultyError(Fault.UNREADABLE, "has leads of different sampling rates")
    return record, physical


def _lead_rows(record: wfdb.Record) -> list[int]:
    """Where each of LEADS is in the record."""
    held = [str(name) for name in record.sig_name or []]  # a header may leave a name out: None
    names = [name.strip().lower() for name in held]
    absent = [lead for lead in LEADS if lead.lower() not in names]
    if absent:
        raise _FaultyError(Fault.MISSING_LEADS, f"lacks {' '.join(absent)}; it holds {' '.join(held)}")
    twice = [lead for lead in LEADS if names.count(lead.lower()) > 1]
    if twice:
        raise _FaultyError(Fault.UNREADABLE, f"holds {' '.join(twice)} more than once")
    return [names.index(lead.lower()) for lead in LEADS]


def _check_sums(record: wfdb.Record, rows: list[int]) -> None:
    """Compare the sums of the samples with the header's, where it has them."""
    sums = record.calc_checksum()
    given = record.checksum or []
    wrong = [
        LEADS[lead]
        for lead, row in enumerate(rows)
        if row < len(given) and given[row] is not None and (sums[row] - given[row]) % 65536
    ]
    if wrong:
        raise _FaultyError(
            Fault.UNREADABLE,
            f"the checksum of {' '.join(wrong)} differs from the header's: damaged, or other samples",
        )


def _in_millivolt(record: wfdb.Record, physical: Signals, rows: list[int]) -> Signals:
    factors = []
    for lead, row in zip(LEADS, rows, strict=True):
        unit = str(record.units[row])
        if unit.lower() not in _MILLIVOLTS:
            raise _FaultyError(Fault.UNREADABLE, f"lead {lead} is in {unit}; V, mV, uV and nV are known")
        factors.append(_MILLIVOLTS[unit.lower()])
    millivolts: Signals = physical[:, rows].T * np.array(factors)[:, None]
    return millivolts


def _resampled(signals: Signals, factor: Fraction) -> Signals:
    if not np.isfinite(signals).all():
        raise _FaultyError(Fault.NOT_MEASURED, "resampling would spread samples that were not measured")
    library = imported("scipy.signal", extra="ecg", needed_for="resampling")
    converted: Signals = library.resample_poly(
        signals, factor.numerator, factor.denominator, axis=1, padtype="line"
    )
    return converted


def _diagnoses(record: wfdb.Record) -> tuple[str, ...]:
    """The codes of the header's comment `Dx: a,b`."""
    for comment in record.comments or []:
        key, _, codes = str(comment).partition(":")
        if key.strip().lower() == "dx":
            return tuple(code.strip() for code in codes.split(",") if code.strip())
    return ()


def _wfdb() -> ModuleType:
    return imported("wfdb", extra="ecg", needed_for="reading WFDB files")
