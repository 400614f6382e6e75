"""What makes a recording unfit: samples that are missing, stuck or clipped; and a check of the limb leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.data.ecg.recordings import LEADS
from compressor.errors import InputError

__all__ = ["Fault", "QualityLimits", "limb_lead_error", "signal_fault"]

Signals = npt.NDArray[np.floating]
_FAR = 0.25  # of a lead's range: an extreme so far from the median is a peak, not a baseline that is flat


class Fault(Enum):
    """Why a recording was not taken. The last two are no fault of the file: it is whole, but has no label."""

    UNREADABLE = "unreadable"
    MISSING_LEADS = "missing leads"
    SAMPLING_RATE = "wrong sampling rate"
    NOT_MEASURED = "NaN samples"
    FLAT = "flat leads"
    SATURATED = "saturated leads"
    NO_RHYTHM = "none of the rhythms"
    SEVERAL_RHYTHMS = "several rhythms"

    @property
    def broken(self) -> bool:
        """Whether the file or its signals are at fault."""
        return self not in (Fault.NO_RHYTHM, Fault.SEVERAL_RHYTHMS)


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """From when on a lead is unfit: `flat_s` seconds of one value on end, `clipped_ms` in all at an extreme.

    LUDB has isoelectric stretches of one value up to 0.58 s, and coarse peaks spend up to 80 ms at one
    extreme (112 ms in PTB-XL); all of these pass. Raises InputError for limits that are not positive.
    """

    flat_s: float = 1.0
    clipped_ms: float = 150.0

    def __post_init__(self) -> None:
        if not (self.flat_s > 0 and self.clipped_ms > 0):
            raise InputError(
                f"QualityLimits: must be positive, got flat_s={self.flat_s:g}, clipped_ms={self.clipped_ms:g}"
            )


def signal_fault(
    signals_mV: Tensor, *, sampling_hz: int, limits: QualityLimits | None = None
) -> tuple[Fault, str] | None:
    """The first fault of signals [12, T], with the leads it is in, or None.

    Looked for in this order: samples that are NaN or infinite; leads that keep one value for `flat_s` or
    longer; leads that spend `clipped_ms` or more at their very maximum or minimum, where that is far from
    their median: beats whose peaks are cut off, or an amplifier at its limit. The limit of the converter
    itself is not asked for, because files are also written scaled to it.

    >>> signals = torch.randn(12, 5000)
    >>> signal_fault(signals, sampling_hz=500) is None
    True
    >>> signals[7] = 0
    >>> signal_fault(signals, sampling_hz=500)
    (<Fault.FLAT: 'flat leads'>, 'V2')
    """
    limit = limits or QualityLimits()
    signals = signals_mV.detach().cpu().numpy()
    holed = ~np.isfinite(signals).all(1)
    if holed.any():
        return Fault.NOT_MEASURED, _names(holed)
    flat = _longest_run(np.diff(signals, axis=1) == 0) + 1 >= limit.flat_s * sampling_hz
    if flat.any():
        return Fault.FLAT, _names(flat)
    clipped = _clipped(signals, limit.clipped_ms * sampling_hz / 1000)
    return (Fault.SATURATED, _names(clipped)) if clipped.any() else None


def limb_lead_error(signals_mV: Tensor) -> Tensor:
    """How far III is from II − I, [N] of signals [N, 12, T]: 0 in a sound recording.

    Einthoven's law holds sample by sample in every sound recording, offsets aside; leads that were swapped,
    or scaled each on its own, break it. The number is the standard deviation of III − (II − I) over that of
    III: NaN where III is constant.

    >>> i, ii = torch.randn(2, 1, 1000)
    >>> sound = torch.cat([i, ii, ii - i, torch.zeros(9, 1000)])[None]
    >>> swapped = sound[:, [1, 0, *range(2, 12)]]
    >>> [round(limb_lead_error(signals).item(), 3) for signals in (sound, swapped)]
    [0.0, 2.0]
    """
    if signals_mV.ndim != 3 or signals_mV.shape[1] != len(LEADS):
        raise InputError(f"limb_lead_error: takes signals [N, 12, T], got {list(signals_mV.shape)}")
    one, two, three = signals_mV[:, :3].double().unbind(1)
    return ((three - (two - one)).std(1) / three.std(1)).to(torch.float32)


def _clipped(signals: Signals, samples: float) -> npt.NDArray[np.bool_]:
    """Which leads have so many samples at an extreme that is far from their median."""
    far = _FAR * np.ptp(signals, axis=1)
    middle = np.median(signals, axis=1)
    found = np.zeros(len(signals), bool)
    for extreme in (signals.max(1), signals.min(1)):
        often = (signals == extreme[:, None]).sum(1) >= samples
        found |= often & (np.abs(extreme - middle) > far)
    return found


def _longest_run(true: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The length of the longest stretch of True in each row."""
    edges = np.diff(np.pad(true.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    return np.array(
        [np.max(np.flatnonzero(row == -1) - np.flatnonzero(row == 1), initial=0) for row in edges]
    )


def _names(leads: Sequence[bool] | npt.NDArray[np.bool_]) -> str:
    return " ".join(name for name, chosen in zip(LEADS, leads, strict=True) if chosen)
