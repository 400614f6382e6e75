"""Budgets by threshold: what scores too little goes, however much that is."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from compressor.budget.base import Budget
from compressor.budget.ladder import Ladder, Lost
from compressor.budget.numbers import check_part
from compressor.errors import BudgetError

__all__ = ["OptimalThreshold", "Threshold", "optimal_threshold"]

# A group whose largest scale is below this is all but dead, whatever the shares of its channels.
_DEAD = 1e-3
_FLOOR = 1e-18  # a group of zeros has shares, too


@dataclass(frozen=True, repr=False)
class Threshold(Budget):
    """Every channel goes whose score is not above `at`, or as many as the limits of `Budget` allow.

    For the end of sparse training: with the scores of `scoring.BatchNormScale()`, the mean |γ| over
    all norms that a channel goes through, `Threshold(1e-2)` keeps what has |γ| > 0.01. Where all of
    a group would go, the largest stays.

    *Source: N. Jiang, X. Zhao, C. Zhao, Y. An, M. Tang, J. Wang, 2022, arXiv 2201.06776 (0.01).*
    Departure: the layers of a residual stream have one score together, where the original votes.

    >>> Threshold(1e-2, round_to=8)
    Threshold(0.01, round_to=8)
    """

    at: float

    def __post_init__(self) -> None:
        """Check the threshold and the limits."""
        if isinstance(self.at, bool) or not isinstance(self.at, Real) or not np.isfinite(self.at):
            raise BudgetError(f"Threshold(at) = {self.at!r}: a number to compare scores with is expected")
        super().__post_init__()

    def lost(self, ladder: Ladder) -> Lost:
        """For each group its highest rung within what scores at most `at`."""
        return _lost(ladder, [self.at] * len(ladder.scores))


@dataclass(frozen=True, repr=False)
class OptimalThreshold(Budget):
    """Of every group those channels go that together hold a share of at most `delta` of Σ γ².

    The threshold of each group lies between the last that goes and the first that stays, see
    `optimal_threshold`; for scores that are sizes of scales, as those of `scoring.BatchNormScale()` are.

    *Source: the released code of MaskSparsity ("OT", delta 1e-4), arXiv 2201.06776.*

    >>> OptimalThreshold(1e-4)
    OptimalThreshold(0.0001)
    """

    delta: float = 1e-4

    def __post_init__(self) -> None:
        """Check the share and the limits."""
        check_part("OptimalThreshold(delta)", self.delta, low=False, high=False)
        super().__post_init__()

    def lost(self, ladder: Ladder) -> Lost:
        """For each group its highest rung within what scores at most its threshold."""
        return _lost(ladder, [optimal_threshold(scores, self.delta) for scores in ladder.scores])


def optimal_threshold(scales: npt.NDArray[np.float64], delta: float = 1e-4) -> float:
    """The threshold for the scales |γ| [C] of one layer: keep what is above it.

    With the scales in ascending order, g, and i the first place at which Σ_{j≤i} g_j² / Σ g² > `delta`, it
    is (g_{i−1} + g_i) / 2, and 0 where i is the first. Where no scale reaches 1e-3 it is 1: all go.

    *Source: the released code of MaskSparsity, `css_thresholding`.*

    >>> optimal_threshold(np.array([0.9, 0.001, 1.1, 0.002]))
    0.451
    """
    ascending = np.sort(np.maximum(np.abs(scales), _FLOOR))
    if ascending[-1] < _DEAD:
        return 1.0
    shares = np.cumsum(ascending**2) / np.sum(ascending**2)
    first = int(np.argmax(shares > delta))
    return 0.0 if first == 0 else float((ascending[first - 1] + ascending[first]) / 2)


def _lost(ladder: Ladder, thresholds: list[float]) -> Lost:
    lost = []
    for scores, allowance, threshold in zip(ladder.scores, ladder.allowances, thresholds, strict=True):
        # Scores need not ascend where ranks went in earlier steps: those come first and stay away.
        below = int(np.searchsorted(np.maximum.accumulate(scores), threshold, side="right"))
        fitting = int(np.searchsorted(allowance.levels, below, side="right"))
        lost.append(allowance.levels[max(0, fitting - 1)])
    return np.array(lost, dtype=np.int64)
