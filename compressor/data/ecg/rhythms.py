"""What the simulator draws from: the four rhythms, and what disturbs a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compressor.errors import InputError

__all__ = ["AFIB", "GSVT", "RHYTHMS", "SB", "SR", "Disturbances", "Range", "Rhythm"]

Range = tuple[float, float]  # low, high


def _check_range(
    where: str, name: str, values: Range, *, least: float = 0.0, most: float = float("inf")
) -> None:
    low, high = values
    if not (least <= low <= high <= most and high < math.inf):
        raise InputError(
            f"{where}: {name} must be (low, high) with {least:g} <= low <= high <= {most:g}, got {values}"
        )


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """One class of recordings; from each range a value is drawn evenly for each recording.

    `rate_bpm` is the mean heart rate, `rr_variation` the standard deviation of the RR intervals divided by
    their mean. A recording's P waves have one of the sizes `p_sizes`: 1 is normal, 0 none. `f_waves_mV` is
    the amplitude of the fibrillatory waves, `f_waves_hz` their frequency. Raises InputError for ranges that
    make no sense.

    >>> AFIB.p_sizes, SR.f_waves_mV
    ((0.0,), (0.0, 0.0))
    """

    name: str
    rate_bpm: Range
    rr_variation: Range
    p_sizes: tuple[float, ...] = (1.0,)
    f_waves_mV: Range = (0.0, 0.0)
    f_waves_hz: Range = (4.5, 8.5)

    def __post_init__(self) -> None:
        where = f"rhythm {self.name}"
        _check_range(where, "rate_bpm", self.rate_bpm, least=20, most=250)
        _check_range(where, "rr_variation", self.rr_variation, most=1)
        _check_range(where, "f_waves_mV", self.f_waves_mV)
        _check_range(where, "f_waves_hz", self.f_waves_hz)
        if not self.p_sizes or not all(0 <= size < math.inf for size in self.p_sizes):
            raise InputError(f"{where}: p_sizes must be one size or more, none negative, got {self.p_sizes}")


# The groups of J. Zheng et al. 2020, Scientific Data 7, 48, in textbook form; the numbers are our choice.
SB = Rhythm(name="SB", rate_bpm=(38, 58), rr_variation=(0.03, 0.03))
AFIB = Rhythm(
    name="AFIB", rate_bpm=(65, 140), rr_variation=(0.15, 0.30), p_sizes=(0.0,), f_waves_mV=(0.04, 0.10)
)
GSVT = Rhythm(name="GSVT", rate_bpm=(140, 210), rr_variation=(0.01, 0.01), p_sizes=(0.0, 0.5))
SR = Rhythm(name="SR", rate_bpm=(61, 98), rr_variation=(0.03, 0.03))
RHYTHMS = (SB, AFIB, GSVT, SR)


@dataclass(frozen=True, kw_only=True)
class Disturbances:
    """What each of the eight leads that are measured adds: a wandering baseline, noise, hum of the mains.

    Wander is one sine whose amplitude and frequency are drawn evenly; `noise_mV` is the standard deviation
    of white noise, `mains_mV` the amplitude of the hum. Raises InputError for negative numbers.

    >>> Disturbances.none().noise_mV
    0.0
    """

    wander_mV: Range = (0.1, 0.5)
    wander_hz: Range = (0.15, 0.4)
    noise_mV: float = 0.02
    mains_mV: float = 0.01
    mains_hz: float = 50.0

    def __post_init__(self) -> None:
        for name in ("wander_mV", "wander_hz"):
            _check_range("Disturbances", name, getattr(self, name))
        for name in ("noise_mV", "mains_mV", "mains_hz"):
            value = getattr(self, name)
            _check_range("Disturbances", name, (value, value))

    @classmethod
    def none(cls) -> Disturbances:
        """Clean signals."""
        return cls(wander_mV=(0.0, 0.0), noise_mV=0.0, mains_mV=0.0)
