from __future__ import annotations

import pytest
import torch

from compressor.data.ecg import Fault, QualityLimits, limb_lead_error, signal_fault
from compressor.errors import InputError


def beats(clip: float = 9.0) -> torch.Tensor:
    """Ten beats of 1 mV in each lead, cut off at `clip`, over noise of 1 µV steps."""
    seconds = torch.arange(5000) / 500
    peaks = torch.exp(-0.5 * (((seconds % 1) - 0.5) / 0.03) ** 2)
    noise = torch.randint(-3, 4, (12, 5000)) / 1000
    return (peaks.expand(12, 5000) + noise).clamp(max=clip)


def fault(signals: torch.Tensor, limits: QualityLimits | None = None) -> tuple[Fault, str] | None:
    return signal_fault(signals, sampling_hz=500, limits=limits)


def test_sound_beats_pass() -> None:
    assert fault(beats()) is None


def test_nan_and_infinite_samples_are_found_with_their_leads() -> None:
    signals = beats()
    signals[0, 3], signals[11, 4] = float("nan"), float("inf")
    assert fault(signals) == (Fault.NOT_MEASURED, "I V6")


@pytest.mark.parametrize(("length", "found"), [(499, False), (500, True), (5000, True)])
def test_a_lead_that_keeps_a_value_for_a_second_is_flat(length: int, found: bool) -> None:
    signals = beats()
    signals[3] = torch.randn(5000)
    signals[3, 5000 - length :] = 0.25
    assert fault(signals) == ((Fault.FLAT, "aVR") if found else None)


def test_beats_whose_peaks_are_cut_off_are_saturated() -> None:
    signals = beats()
    signals[6] = beats(clip=0.8)[6]
    assert fault(signals) == (Fault.SATURATED, "V1")
    signals[6] = -signals[6]
    assert fault(signals) == (Fault.SATURATED, "V1")
    assert fault(signals, QualityLimits(clipped_ms=5000)) is None


def test_a_resting_line_at_the_minimum_is_no_saturation() -> None:
    assert fault(beats().clamp(min=0.0).round(decimals=3)) is None


@pytest.mark.parametrize("limits", [{"flat_s": 0.0}, {"clipped_ms": -1.0}])
def test_limits_are_positive(limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match="QualityLimits: must be positive"):
        QualityLimits(**limits)


def test_leads_scaled_each_on_its_own_break_einthovens_law() -> None:
    signals = torch.randn(2, 12, 2000)
    signals[:, 2] = signals[:, 1] - signals[:, 0] + 0.3  # an offset is none of it
    assert limb_lead_error(signals).max() < 1e-5
    signals[1, 0] *= 1.5
    error = limb_lead_error(signals)
    assert error[0] < 1e-5
    closed = 0.5 / 2**0.5  # the surplus of I over III, which has the variance of I and II together
    assert error[1].item() == pytest.approx(closed, rel=0.05)
    with pytest.raises(InputError, match=r"takes signals \[N, 12, T\]"):
        limb_lead_error(signals[0])
