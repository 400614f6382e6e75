"""The same ratio everywhere."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np

from compressor.budget.base import Budget
from compressor.budget.ladder import Ladder, Lost
from compressor.budget.numbers import check_ratio, exact
from compressor.errors import NothingToPruneWarning

__all__ = ["Uniform"]


@dataclass(frozen=True, repr=False)
class Uniform(Budget):
    """Every group loses `ratio` of its channels, or as much of it as the limits of `Budget` allow.

    What stays is rounded up. Groups that are too narrow to lose one channel are named in a warning.

    >>> Uniform(0.5, ignore="stem", round_to=8)
    Uniform(0.5, ignore=('stem',), round_to=8)
    """

    ratio: float

    def __post_init__(self) -> None:
        """Check the ratio and the limits."""
        check_ratio("Uniform(ratio)", self.ratio)
        super().__post_init__()

    def lost(self, ladder: Ladder) -> Lost:
        """For each group its highest rung within the ratio."""
        lost = ladder.start.copy()
        whole = []
        for position, (group, allowance) in enumerate(
            zip(ladder.graph.groups, ladder.allowances, strict=True)
        ):
            within = allowance.levels <= math.floor(exact(self.ratio) * group.size)
            if within.any():
                lost[position] = allowance.levels[within][-1]
            if lost[position] == 0 and len(allowance.levels) > 1:
                step = int(allowance.levels[1]) * group.channels
                whole.append(f"{group.name} ({group.size * group.channels} channels, smallest step {step})")
        if whole and lost.any():
            warnings.warn(
                f"{self!r}: {len(whole)} of {len(lost)} groups stay whole, because the ratio is "
                "less than "
                f"their smallest step: {', '.join(whole)}",
                NothingToPruneWarning,
                stacklevel=4,
            )
        return np.asarray(lost)

    def part(self, share: float) -> Uniform:
        """The ratio that leaves (1 - ratio)^share."""
        return replace(self, ratio=1 - (1 - self.ratio) ** share)
