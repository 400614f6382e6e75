from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.data.ecg import LEADS, Recording, Recordings
from compressor.errors import InputError

CLASSES = ("SB", "AFIB", "GSVT", "SR")


def three(**changes: Any) -> Recordings:
    fields: dict[str, Any] = {
        "signals_mV": torch.randn(3, 12, 50),
        "labels": torch.tensor([3, 0, 3]),
        "names": ("a", "b", "c"),
        "classes": CLASSES,
        "sampling_hz": 500,
    }
    return Recordings(**{**fields, **changes})


def holed() -> torch.Tensor:
    signals = torch.zeros(3, 12, 50)
    signals[1, 4, 7] = float("nan")
    signals[2, 0, 0] = float("inf")
    return signals


def test_the_leads_are_the_standard_twelve_limb_leads_first() -> None:
    assert " ".join(LEADS) == "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"


def test_counts_name_every_class() -> None:
    assert three().counts() == {"SB": 1, "AFIB": 0, "GSVT": 0, "SR": 2}
    assert repr(three()) == "Recordings(3 of 0.1 s at 500 Hz: 1 SB, 0 AFIB, 0 GSVT, 2 SR)"


def test_a_selection_keeps_each_recording_whole() -> None:
    whole = three(subjects=torch.tensor([7, 7, 9]))
    part = whole.select([2, 0])
    assert part.names == ("c", "a")
    assert torch.equal(part.signals_mV, whole.signals_mV[[2, 0]])
    assert part.labels.tolist() == [3, 3]
    assert part.subjects is not None and part.subjects.tolist() == [9, 7]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.tensor([True, False, True]), r"got torch\.bool \[3\]; the positions of a mask are"),
        ([True, False], r"got torch\.bool"),
        ([0.0], r"got torch\.float32"),
        (torch.tensor(1), r"integers \[n\]"),
        ([0, 3], r"must lie in 0\.\.2, got 0\.\.3"),
        ([-1], r"must lie in 0\.\.2, got -1\.\.-1"),
    ],
)
def test_a_mask_is_no_selection(indices: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        three().select(indices)


def test_two_names_of_one_signal_are_found() -> None:
    signals = torch.randn(3, 12, 50)
    signals[2] = signals[0]
    assert three(signals_mV=signals).duplicates() == (("a", "c"),)
    assert three().duplicates() == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signals_mV": torch.zeros(3, 11, 50)}, r"must be \[N, 12, T\], leads in the order I II III"),
        ({"signals_mV": torch.zeros(3, 12, 50).double()}, r"float32 in millivolt, got torch\.float64"),
        ({"signals_mV": torch.zeros(3, 12, 50).short()}, r"got torch\.int16; divide"),
        ({"signals_mV": holed()}, r"2 of 3 hold samples that are NaN or infinite, the first b, c"),
        (
            {"labels": torch.tensor([0, 1, 4])},
            r"labels must lie in 0\.\.3 \(SB, AFIB, GSVT, SR\), got 0\.\.4",
        ),
        ({"labels": torch.tensor([0, 1])}, r"labels must be int64 \[3\], got torch\.int64 \[2\]"),
        ({"subjects": torch.zeros(3)}, r"subjects must be int64 \[3\], got torch\.float32"),
        ({"names": ("a", "b")}, r"3 signals, but 2 names"),
        ({"names": ("a", "b", "a")}, r"two recordings are named a"),
        ({"sampling_hz": 0}, r"sampling_hz must be positive, got 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        three(**changes)


def test_one_recording_may_hold_what_was_not_measured() -> None:
    signals = torch.zeros(12, 100)
    signals[0, 3] = float("nan")
    recording = Recording(name="x", signals_mV=signals, sampling_hz=50)
    assert recording.seconds == 2
    assert repr(recording) == "Recording(x: 12 leads, 2 s at 50 Hz)"


@pytest.mark.parametrize("shape", [(11, 100), (12, 0), (1, 12, 100)])
def test_one_recording_has_a_row_for_each_lead(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"recording x: signals_mV must be float32 \[12, T\]"):
        Recording(name="x", signals_mV=torch.zeros(shape), sampling_hz=500)
