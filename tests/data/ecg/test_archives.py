from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data.ecg import (
    RHYTHM_CLASSES,
    Fault,
    Preparation,
    folds_by_record,
    limb_lead_error,
    load_cinc2021_npz,
    load_ludb_npz,
    prepare,
    signal_fault,
)
from compressor.errors import FileError, InputError

ORDER = ["v6", "ii", "iii", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "i"]
RHYTHMS = ["Sinus rhythm", "Atrial flutter", "Sinus tachycardia"]


def saved_ludb(folder: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(3)
    content: dict[str, Any] = {
        "adc": rng.integers(-900, 900, (3, 12, 5000)).astype(np.int16),
        "gain": np.full((3, 12), 250, np.float32),
        "baseline": np.full((3, 12), 20, np.int16),
        "rhythm": np.array([2, 0, 1], np.uint8),
        "rhythm_names": np.array(RHYTHMS),
        "leads": np.array(ORDER),
        "fs": np.array(500),
    }
    file = folder / "ludb.npz"
    np.savez(file, **{name: a for name, a in {**content, **changes}.items() if a is not None})
    return file


def saved_cinc(folder: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(4)
    content: dict[str, Any] = {
        "adc_uV": rng.integers(-900, 900, (4, 12, 5000)).astype(np.int16),
        "record": np.array(["JS1", "E01", "JS2", "JS3"]),
        "dx_snomed": np.array(["427084000,55827005", "426177001", "164934002", "426783006"]),
        "fs": np.array(500),
    }
    file = folder / "cinc.npz"
    np.savez(file, **{name: a for name, a in {**content, **changes}.items() if a is not None})
    return file


def test_ludb_is_grouped_into_the_four_with_its_leads_in_order(tmp_path: Path) -> None:
    file = saved_ludb(tmp_path)
    found = load_ludb_npz(file)
    counts = np.load(file)["adc"]
    assert found.classes == RHYTHM_CLASSES
    assert [found.classes[label] for label in found.labels.tolist()] == ["GSVT", "SR", "AFIB"]
    assert np.allclose(found.signals_mV[:, 0].numpy(), counts[:, 11] / 1000)
    assert np.allclose(found.signals_mV[:, 11].numpy(), counts[:, 0] / 1000)
    published = load_ludb_npz(file, file_gains=True).signals_mV
    assert np.allclose(published[:, 1].numpy(), (counts[:, 1] - 20) / 250, atol=1e-5)


def test_ludbs_own_rhythms_or_any_grouping_can_be_the_classes(tmp_path: Path) -> None:
    file = saved_ludb(tmp_path)
    own = load_ludb_npz(file, grouping=None)
    assert own.classes == tuple(RHYTHMS) and own.labels.tolist() == [2, 0, 1]
    two = dict(zip(RHYTHMS, ("regular", "other", "regular"), strict=True))
    found = load_ludb_npz(file, grouping=two)
    assert found.classes == ("regular", "other") and found.labels.tolist() == [0, 0, 1]
    with pytest.raises(InputError, match="no class for Atrial flutter, Sinus tachycardia"):
        load_ludb_npz(file, grouping={"Sinus rhythm": "SR"})


def test_one_corpus_of_the_challenge_can_be_taken(tmp_path: Path) -> None:
    file = saved_cinc(tmp_path)
    found = load_cinc2021_npz(file, prefix="JS")
    assert found.recordings.names == ("JS1", "JS3")
    assert found.recordings.counts() == {"SB": 0, "AFIB": 0, "GSVT": 1, "SR": 1}
    assert [(one.name, one.fault) for one in found.left_out] == [("JS2", Fault.NO_RHYTHM)]
    assert np.allclose(found.recordings.signals_mV[0].numpy(), np.load(file)["adc_uV"][0] / 1000)
    assert len(load_cinc2021_npz(file).recordings) == 3
    with pytest.raises(FileError, match="no recording is left"):
        load_cinc2021_npz(file, prefix="X")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adc": np.zeros((3, 12, 5000), np.int32)}, r"adc must be int16 \[N, 12, 5000\], got int32"),
        ({"adc": np.zeros((3, 12, 500), np.int16)}, r"got int16 \[3, 12, 500\]"),
        ({"fs": np.array(250)}, r"fs must be 500 \(Hz\), got 250"),
        ({"leads": np.array(["i"] * 12)}, r"leads must be I II III"),
        ({"rhythm": np.array([0, 1, 3])}, r"rhythm must hold positions in the 3 rhythm_names"),
        ({"gain": np.ones(3, np.float32)}, r"gain must hold numbers \[3, 12\], got float32 \[3\]"),
        ({"baseline": None}, r"lacks baseline"),
    ],
)
def test_ludb_laid_out_otherwise_says_how(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=message):
        load_ludb_npz(saved_ludb(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"record": np.arange(4)}, r"record must hold 4 strings, got int64"),
        ({"dx_snomed": np.array(["1"])}, r"dx_snomed must hold 4 strings, got <U1 \[1\]"),
        ({"fs": np.array([500, 500])}, r"fs must be 500"),
    ],
)
def test_the_challenges_sample_laid_out_otherwise_says_how(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match=message):
        load_cinc2021_npz(saved_cinc(tmp_path, **changes))


@pytest.mark.shared
def test_the_counts_of_ludb_obey_einthovens_law_and_its_gains_do_not(shared: Path) -> None:
    file = shared / "data" / "ecg_ludb" / "ludb.npz"
    counts = load_ludb_npz(file)
    assert counts.counts() == {"SB": 25, "AFIB": 18, "GSVT": 4, "SR": 153}
    assert limb_lead_error(counts.signals_mV).max() < 0.05
    published = load_ludb_npz(file, file_gains=True).signals_mV
    assert limb_lead_error(published).median() > 0.5
    assert torch.allclose(published.amax(2) - published.amin(2), torch.ones(200, 12), atol=1e-3)


@pytest.mark.shared
def test_every_recording_of_ludb_is_sound(shared: Path) -> None:
    found = load_ludb_npz(shared / "data" / "ecg_ludb" / "ludb.npz")
    assert not any(signal_fault(signals, sampling_hz=500) for signals in found.signals_mV)
    assert found.duplicates() == ()


@pytest.mark.shared
def test_the_known_sample_of_the_challenge(shared: Path) -> None:
    file = shared / "data" / "ecg_cinc2021_50" / "cinc2021_50.npz"
    with pytest.raises(
        FileError, match=r"2 recordings are broken: 2 flat leads: JS20004 \(V2 V4 V6\), JS20008"
    ):
        load_cinc2021_npz(file)
    found = load_cinc2021_npz(file, skip_broken=True)
    assert found.recordings.duplicates() == (("E07509", "E07510"),)
    assert limb_lead_error(found.recordings.signals_mV).max() < 0.02
    ningbo = load_cinc2021_npz(file, prefix="JS", skip_broken=True)
    assert ningbo.recordings.counts() == {"SB": 2, "AFIB": 0, "GSVT": 15, "SR": 0}
    assert [(one.name, one.fault) for one in ningbo.left_out if not one.fault.broken] == [
        ("JS20002", Fault.NO_RHYTHM)
    ]


@pytest.mark.shared
def test_ludb_becomes_ten_images_of_each_recording_split_by_record(shared: Path) -> None:
    """End to end, on every tenth recording and the rare classes: read, clean, transform, stack, fold."""
    whole = load_ludb_npz(shared / "data" / "ecg_ludb" / "ludb.npz")
    rare = (whole.labels == RHYTHM_CLASSES.index("GSVT")).nonzero().flatten().tolist()
    chosen = whole.select(sorted({*range(0, 200, 10), *rare}))
    images = prepare(chosen, Preparation())
    assert images.images.shape == (10 * len(chosen), 120, 50)
    strongest = images.images.reshape(len(chosen), -1).amax(1)  # a second may pass between two beats
    assert images.images.isfinite().all() and strongest.min() > 1
    for fold in folds_by_record(chosen, folds=2):
        train, test = images.select_records(fold.train), images.select_records(fold.test)
        assert not set(train.names) & set(test.names)
        assert len(train) + len(test) == len(images)


@pytest.mark.shared
def test_fibrillation_in_ludb_beats_irregularly(shared: Path) -> None:
    """RR intervals from the expert's QRS marks: labels and signals belong together."""
    file = shared / "data" / "ecg_ludb" / "ludb.npz"
    found = load_ludb_npz(file)
    spread: dict[bool, list[float]] = {True: [], False: []}
    for marks, label in zip(np.load(file)["seg"][:, 1] == 2, found.labels.tolist(), strict=True):  # lead II
        gaps = np.diff(np.flatnonzero(np.diff(marks.astype(int)) == 1))
        if len(gaps) >= 3:
            spread[found.classes[label] == "AFIB"].append(gaps.std() / gaps.mean())
    assert len(spread[True]) >= 15
    assert np.median(spread[True]) > 4 * np.median(spread[False])
