"""A number with its confidence interval: of a share (Wilson) and of a mean over seeds (Student's t)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from compressor.errors import InputError
from compressor.evaluation.extras import require_metrics

__all__ = ["Interval", "check_level", "check_resamples", "shown", "t_interval", "wilson_interval"]


@dataclass(frozen=True)
class Interval:
    """A value and the interval around it that covers the truth with probability `level`.

    >>> Interval(0.731, 0.7034, 0.7602, 0.95)
    0.731 (0.703 to 0.760)
    """

    value: float
    low: float
    high: float
    level: float

    def __repr__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def shown(interval: Interval | None) -> str:
    """An interval in a table; a dash where there is none.

    >>> shown(None)
    '-'
    """
    return "-" if interval is None else repr(interval)


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """The share successes/trials and its score interval, which holds for few trials and for 0 and 1.

    Raises InputError for no trial, or more successes than trials.

    *Source: E. B. Wilson 1927, "Probable Inference, the Law of Succession, and Statistical
    Inference", JASA 22, 209-212.*

    >>> wilson_interval(9, 10)
    0.900 (0.596 to 0.982)
    """
    require_metrics()
    from scipy.stats import binomtest

    check_level(level)
    if not 0 <= successes <= trials or trials == 0:
        raise InputError(
            f"wilson_interval: expected successes in 0..trials and at least one trial, got {successes} of "
            f"{trials}; a share of nothing is not defined"
        )
    bounds = binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
    return Interval(successes / trials, float(bounds.low), float(bounds.high), level)


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """The mean of independent runs and its t interval: mean ± t(n − 1) · s / √n.

    For differences to another method give the differences of the same seeds: what the seeds share
    then cancels. Raises InputError for fewer than two values, or one that is not finite.

    >>> t_interval([0.71, 0.74, 0.70])
    0.717 (0.665 to 0.768)
    """
    require_metrics()
    from scipy.stats import t

    check_level(level)
    numbers = [float(value) for value in values]
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"t_interval: expected two or more finite values, one for each seed, got {numbers}; one run "
            "says nothing about how runs differ"
        )
    mean = statistics.fmean(numbers)
    half = (
        float(t.ppf((1 + level) / 2, len(numbers) - 1)) * statistics.stdev(numbers) / math.sqrt(len(numbers))
    )
    return Interval(mean, mean - half, mean + half, level)


def check_level(level: float) -> None:
    """Nothing for a confidence level between 0 and 1; raises InputError for others."""
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1 (0.95 for 95 %), got {level!r}")


def check_resamples(who: str, resamples: int) -> None:
    """Nothing for as many draws as quantiles need; raises InputError for fewer."""
    if not isinstance(resamples, int) or resamples < 100:
        raise InputError(f"{who}: an interval needs at least 100 resamples, got {resamples!r}")
