from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import medfilt

from compressor.data.ecg import BaselineRemoval, MedianDenoising, normalize_recordings
from compressor.errors import InputError


def wandering(samples: int = 2500) -> tuple[torch.Tensor, torch.Tensor]:
    """Sharp peaks of 1 mV each second on a slow wave of 0.3 mV, and the wave alone; two rows, shifted."""
    seconds = torch.arange(samples, dtype=torch.float64) / 500
    wave = torch.stack([0.3 * torch.sin(2 * torch.pi * 0.25 * (seconds + shift)) for shift in (0, 0.7)])
    peaks = torch.exp(-0.5 * (((seconds % 1) - 0.5) / 0.012) ** 2)
    return wave + peaks, wave


def naive_median(row: np.ndarray, size: int) -> np.ndarray:
    padded = np.pad(row, size // 2, mode="symmetric")
    return np.array([np.median(padded[start : start + size]) for start in range(len(row))])


def test_the_baseline_is_a_median_of_a_median_over_101_and_301_samples() -> None:
    signals, _ = wandering()
    row = signals[0].numpy()
    baseline = naive_median(naive_median(row, 101), 301)
    cleaned = BaselineRemoval()(signals, sampling_hz=500)
    assert np.allclose(cleaned[0].numpy(), row - baseline, atol=1e-12)


def test_inside_the_signal_scipys_other_median_filter_agrees() -> None:
    signals = torch.randn(1, 1200, dtype=torch.float64).cumsum(1)
    row = signals[0].numpy()
    expected = row - medfilt(medfilt(row, 101), 301)
    found = BaselineRemoval()(signals, sampling_hz=500)[0].numpy()
    assert np.allclose(found[200:-200], expected[200:-200], atol=1e-12)


def test_windows_follow_the_sampling_rate() -> None:
    signals, _ = wandering()
    row = signals[1].numpy()
    cleaned = BaselineRemoval(first_ms=100, second_ms=400)(signals[1], sampling_hz=250)
    assert np.allclose(cleaned.numpy(), row - naive_median(naive_median(row, 25 + 0), 101), atol=1e-12)


@pytest.mark.parametrize("decimation", [1, 5])
def test_wander_goes_and_peaks_stay(decimation: int) -> None:
    signals, wave = wandering()
    cleaned = BaselineRemoval(decimation=decimation)(signals, sampling_hz=500)
    inside = slice(300, -300)
    assert (cleaned - (signals - wave))[:, inside].abs().max() < 0.05
    assert cleaned[:, 750].min() > 0.95  # a peak


def test_the_decimated_baseline_is_near_the_full_one() -> None:
    signals, wave = wandering(2502)  # not a multiple of 5
    full, fast = (BaselineRemoval(decimation=step)(signals, sampling_hz=500) for step in (1, 5))
    difference = (full - fast).square().mean().sqrt()
    assert 0 < difference < 0.03 * wave.square().mean().sqrt()


def test_an_impulse_goes_and_what_is_longer_stays() -> None:
    signals = torch.zeros(2, 40)
    signals[0, 10:12] = 5
    signals[1, 20:23] = 5
    cleaned = MedianDenoising(samples=5)(signals, sampling_hz=500)
    assert torch.equal(cleaned[0], torch.zeros(40))
    assert torch.equal(cleaned[1], signals[1])


def test_the_argument_stays_and_shape_and_dtype_are_kept() -> None:
    signals = torch.randn(2, 12, 800)
    before = signals.clone()
    for cleaner in (BaselineRemoval(), BaselineRemoval(decimation=5), MedianDenoising()):
        cleaned = cleaner(signals, sampling_hz=500)
        assert cleaned.shape == signals.shape and cleaned.dtype == signals.dtype
    assert torch.equal(signals, before)


def test_a_recording_is_scaled_as_a_whole_so_that_leads_keep_their_ratios() -> None:
    signals = torch.randn(3, 12, 100, dtype=torch.float64) * torch.arange(1, 13)[:, None]
    scaled = normalize_recordings(signals)
    assert torch.allclose(scaled.mean((1, 2)), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert np.allclose(scaled.numpy().std((1, 2)), 1)
    spans, before = (x.amax(2) - x.amin(2) for x in (scaled, signals))
    assert torch.allclose(spans / spans[:, :1], before / before[:, :1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BaselineRemoval(first_ms=700), r"0 < first_ms <= second_ms, got 700 and 600"),
        (lambda: BaselineRemoval(decimation=0), r"decimation must be 1 or more, got 0"),
        (lambda: MedianDenoising(samples=4), r"odd and 3 or more, got 4: an even window would shift"),
        (
            lambda: BaselineRemoval()(torch.zeros(12, 300), sampling_hz=500),
            r"600 ms \(301 samples\) is longer than the signal \(300 samples at 500 Hz\)",
        ),
        (
            lambda: BaselineRemoval()(torch.full((1, 900), torch.nan), sampling_hz=500),
            r"hold NaN or infinite samples",
        ),
        (lambda: MedianDenoising()(torch.zeros(9).int(), sampling_hz=500), r"float32 or float64, got torch"),
        (lambda: normalize_recordings(torch.full((2, 12, 5000), 0.7)), r"2 recordings are constant"),
    ],
)
def test_what_makes_no_sense_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
