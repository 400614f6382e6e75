"""The wavelet transform against closed forms, a sum over samples in time, and the paper file's table."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from compressor.data.ecg import MorletBank, cut_windows, scalograms
from compressor.errors import InputError

SECONDS = torch.arange(500, dtype=torch.float64) / 500
TEN = (45, 31.84, 22.53, 15.94, 11.28, 7.98, 5.65, 4.00, 2.83, 2.00)


def at_centre(frequency_hz: float, bank: MorletBank | None = None, amplitude: float = 1.0) -> torch.Tensor:
    sine = amplitude * torch.sin(2 * torch.pi * frequency_hz * SECONDS)
    return scalograms(sine, bank or MorletBank(), sampling_hz=500)[:, 250]


def summed_in_time(window: np.ndarray, frequency_hz: float, w0: float, pad: int) -> np.ndarray:
    """The transform by its integral: the wavelet's closed form in time, summed over the reflected samples."""
    padded = np.pad(window, pad, mode="reflect")
    scale = w0 / (2 * np.pi * frequency_hz)
    inside = np.arange(len(window))
    lag = (np.arange(len(padded))[None] - pad - inside[:, None]) / 500
    wavelet = np.exp(-0.5 * (lag / scale) ** 2 - 1j * w0 * lag / scale) / (scale * math.sqrt(2 * math.pi))
    return np.abs(2 * (wavelet * padded).sum(1) / 500)


def test_rows_run_from_the_highest_frequency_to_the_lowest_in_equal_steps() -> None:
    assert MorletBank().frequencies_hz == pytest.approx(TEN, abs=6e-3)
    eighteen = MorletBank(rows=18).frequencies_hz
    assert len(eighteen) == 18 and eighteen[0] == 45 and eighteen[-1] == pytest.approx(2)
    steps = [b / a for a, b in itertools.pairwise(eighteen)]
    assert steps == pytest.approx([steps[0]] * 17)


@pytest.mark.parametrize("row", range(7))
def test_a_sine_shows_its_amplitude_on_its_row(row: int) -> None:
    magnitude = at_centre(MorletBank().frequencies_hz[row], amplitude=2.5)[row]
    assert magnitude.item() / 2.5 == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(("row", "magnitude"), [(7, 0.930), (8, 0.847), (9, 0.43)])
def test_slow_rows_feel_the_ends_of_one_second(row: int, magnitude: float) -> None:
    assert at_centre(MorletBank().frequencies_hz[row])[row].item() == pytest.approx(magnitude, abs=2e-3)


@pytest.mark.parametrize("w0", [5.0, 6.0, 8.0])
def test_a_sine_falls_off_on_other_rows_as_a_gaussian(w0: float) -> None:
    bank = MorletBank(w0=w0)
    heard = bank.frequencies_hz[3]
    for row in range(6):
        closed = math.exp(-0.5 * (w0 * (heard / bank.frequencies_hz[row] - 1)) ** 2)
        assert at_centre(heard, bank)[row].item() == pytest.approx(closed, abs=2e-3)
    if w0 == 6:
        assert at_centre(heard)[2].item() == pytest.approx(0.214, abs=1e-3)


def test_a_sine_begins_with_little_at_the_windows_ends() -> None:
    sine = torch.sin(2 * torch.pi * MorletBank().frequencies_hz[2] * SECONDS)
    assert scalograms(sine, MorletBank(), sampling_hz=500)[2, 0].item() == pytest.approx(0.065, abs=5e-3)


def test_every_sample_is_the_integral_over_time() -> None:
    window = np.random.default_rng(1).normal(size=500).cumsum()
    bank = MorletBank()
    found = scalograms(torch.from_numpy(window), bank, sampling_hz=500).numpy()
    for row in (0, 2, 4):  # rows whose wavelet has died out within the 262 reflected samples
        closed = summed_in_time(window, bank.frequencies_hz[row], 6.0, 262)
        assert np.abs(found[row] - closed).max() < 1e-5 * closed.max()


def test_a_constant_shows_nothing() -> None:
    assert scalograms(torch.full((500,), 7.0), MorletBank(), sampling_hz=500).max() < 1e-4


def test_a_batch_is_its_windows_one_by_one() -> None:
    windows = torch.randn(2, 12, 3, 500)
    together = scalograms(windows, MorletBank(rows=4), sampling_hz=500)
    assert together.shape == (2, 12, 3, 4, 500) and together.dtype == torch.float32
    alone = scalograms(windows[1, 5, 2], MorletBank(rows=4), sampling_hz=500)
    assert torch.allclose(together[1, 5, 2], alone, atol=1e-5)


@pytest.mark.parametrize("size", [2, 7, 90, 125, 500, 513, 1000])
def test_windows_of_any_length_are_transformed(size: int) -> None:
    """A window of 513 would need more reflected samples than it has to reach the next power of two."""
    seconds = torch.arange(size, dtype=torch.float64) / 1000
    found = scalograms(torch.sin(2 * torch.pi * 100 * seconds), MorletBank(highest_hz=100), sampling_hz=1000)
    assert found.shape == (10, size) and found.isfinite().all()
    if size >= 90:
        assert found[0, size // 2].item() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(
    ("windows", "sampling_hz", "message"),
    [
        (torch.zeros(500), 90, r"a row at 45 Hz needs more than 90 samples per second, got 90"),
        (torch.zeros(500, dtype=torch.int16), 500, r"must be float32 or float64 .* got torch\.int16"),
        (torch.zeros(1), 500, r"T of 2 or more"),
        (torch.tensor([0.0, float("nan")]), 500, r"holds NaN or infinite"),
    ],
)
def test_windows_that_make_no_sense_are_refused(
    windows: torch.Tensor, sampling_hz: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        scalograms(windows, MorletBank(), sampling_hz=sampling_hz)


@pytest.mark.parametrize(
    "options",
    [{"rows": 1}, {"lowest_hz": 0.0}, {"lowest_hz": 50.0}, {"highest_hz": math.inf}, {"w0": 4.0}],
)
def test_banks_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="MorletBank"):
        MorletBank(**options)  # type: ignore[arg-type]


def test_windows_follow_each_other_and_the_rest_is_left_out() -> None:
    signals = torch.randn(2, 12, 1250)
    windows = cut_windows(signals, 500)
    assert windows.shape == (2, 12, 2, 500)
    assert torch.equal(windows[1, 3, 1], signals[1, 3, 500:1000])
    with pytest.raises(InputError, match="1250 samples holds no window of 1251"):
        cut_windows(signals, 1251)
