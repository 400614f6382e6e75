"""Scalograms: magnitudes of the continuous wavelet transform with the analytic Morlet wavelet, in batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.errors import InputError

__all__ = ["MorletBank", "cut_windows", "scalograms"]


@dataclass(frozen=True, kw_only=True)
class MorletBank:
    """Which frequencies a scalogram has rows for: `rows` of them, evenly spaced on a log axis, highest first.

    `w0` is the wavelet's centre in radians per scale: more cycles under its envelope, finer in frequency,
    coarser in time. Ten rows from 2 to 45 Hz make images of 120 rows, 18 rows those of 216, near the 224 of
    ImageNet networks. A window of one second cannot tell frequencies under about 2 Hz apart.

    >>> [round(frequency, 1) for frequency in MorletBank().frequencies_hz]
    [45.0, 31.8, 22.5, 15.9, 11.3, 8.0, 5.6, 4.0, 2.8, 2.0]
    """

    rows: int = 10
    lowest_hz: float = 2.0
    highest_hz: float = 45.0
    w0: float = 6.0

    def __post_init__(self) -> None:
        if self.rows < 2 or not 0 < self.lowest_hz < self.highest_hz < math.inf:
            raise InputError(
                "MorletBank: takes two rows or more and 0 < lowest_hz < highest_hz, "
                f"got rows={self.rows}, lowest_hz={self.lowest_hz:g}, highest_hz={self.highest_hz:g}"
            )
        if not 5 <= self.w0 < math.inf:
            raise InputError(
                f"MorletBank: w0 must be 5 or more, got {self.w0:g}: below that the wavelet has a mean of "
                "its own (e^(-w0²/2) of its peak), and a constant would show as a signal"
            )

    @property
    def frequencies_hz(self) -> tuple[float, ...]:
        """The centre frequency of each row."""
        step = (self.lowest_hz / self.highest_hz) ** (1 / (self.rows - 1))
        return tuple(self.highest_hz * step**row for row in range(self.rows))


def cut_windows(signals: Tensor, size: int) -> Tensor:
    """The signals [..., T] in windows that follow each other, [..., T // size, size]; the rest is left out.

    Raises InputError where a signal is shorter than one window.

    >>> cut_windows(torch.arange(7), 3)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    if not 1 <= size <= signals.shape[-1]:
        raise InputError(
            f"cut_windows: a signal of {signals.shape[-1]} samples holds no window of {size}: "
            "take longer signals or shorter windows"
        )
    return signals.unfold(-1, size, size)


def scalograms(windows: Tensor, bank: MorletBank, *, sampling_hz: float) -> Tensor:
    """The magnitudes |W| [..., rows, T] of windows [..., T], on their device and in their dtype.

    A sine of amplitude A at a row's frequency has magnitude A there. Row i has scale s = w0 / (2π f_i); the
    window is continued by reflection to about twice its length (500 samples to 1024, 262 on either side), its
    spectrum multiplied by H(ω) = 2 exp(−(s ω − w0)² / 2) for ω > 0 and by 0 elsewhere, and what is inside the
    window is kept. Towards the ends, and on rows whose period is a good part of the window (below 5 Hz in one
    second), reflection shows: a 4 Hz sine has 0.93 at the centre, a 2 Hz one 0.43.

    Raises InputError for windows that are not float32 or float64, or NaN, or under 2 samples long, and for
    rows at or above half the sampling rate.

    *Source: Aarotale & Rattani 2023, arXiv 2312.09426 (a time-frequency scalogram of each second and lead).
    The wavelet is not named there; this one is C. Torrence & G. Compo 1998, "A Practical Guide to Wavelet
    Analysis", table 1, scaled so that amplitudes can be read off. ssqueezepy 0.6.6 (`cwt`, morlet of mu 6,
    reflect, L1) gives the same numbers times 1.0623, to 2e-7; it needs numba and takes one signal at a
    time. PyWavelets 1.9 samples a wavelet it integrates, which is 3 % off (root mean square).*

    >>> seconds = torch.arange(500) / 500
    >>> magnitudes = scalograms(3 * torch.sin(2 * torch.pi * 45 * seconds), MorletBank(), sampling_hz=500)
    >>> magnitudes.shape, round(magnitudes[0, 250].item(), 3)
    (torch.Size([10, 500]), 3.0)
    """
    _check(windows, bank, sampling_hz)
    size = windows.shape[-1]
    before, length = _padding(size)
    flat_BT = windows.reshape(-1, 1, size)
    padded_BL = F.pad(flat_BT, (before, length - size - before), mode="reflect")
    spectrum_BW = torch.fft.rfft(padded_BL)  # [B, 1, L // 2 + 1]
    analytic_BSW = spectrum_BW * _responses(bank, length, sampling_hz, windows)
    transformed_BSL = torch.fft.ifft(analytic_BSW, n=length)  # the negative frequencies are zeros
    magnitudes: Tensor = transformed_BSL[..., before : before + size].abs()
    return magnitudes.reshape(*windows.shape[:-1], bank.rows, size)


def _check(windows: Tensor, bank: MorletBank, sampling_hz: float) -> None:
    if windows.dtype not in (torch.float32, torch.float64) or windows.ndim < 1 or windows.shape[-1] < 2:
        raise InputError(
            "scalograms: windows must be float32 or float64 [..., T] with T of 2 or more, "
            f"got {windows.dtype} {list(windows.shape)}"
        )
    if bank.highest_hz >= sampling_hz / 2:
        raise InputError(
            f"scalograms: a row at {bank.highest_hz:g} Hz needs more than {2 * bank.highest_hz:g} samples "
            f"per second, got {sampling_hz:g}: lower highest_hz"
        )
    if not windows.isfinite().all():
        raise InputError(
            "scalograms: a window holds NaN or infinite samples, which would fill all of its rows"
        )


def _padding(size: int) -> tuple[int, int]:
    """How many samples come before a window, and the length of all: a power of two if reflection reaches."""
    length = 2 ** math.ceil(math.log2(2 * size))
    length = min(length, 3 * size - 2)  # reflection has size - 1 samples to give on either side
    return (length - size) // 2, length


def _responses(bank: MorletBank, length: int, sampling_hz: float, like: Tensor) -> Tensor:
    """H of each row at the frequencies that a spectrum of real signals has, [rows, L // 2 + 1]."""
    omega_W = 2 * torch.pi * torch.fft.rfftfreq(length, 1 / sampling_hz, dtype=torch.float64)
    centres_S1 = 2 * torch.pi * torch.tensor(bank.frequencies_hz, dtype=torch.float64)[:, None]
    responses_SW = 2 * torch.exp(-0.5 * (bank.w0 * (omega_W / centres_S1 - 1)) ** 2)
    responses_SW[:, 0] = 0
    return responses_SW.to(like.device, like.dtype)
