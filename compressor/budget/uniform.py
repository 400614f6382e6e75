"""The same ratio everywhere."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

from compressor.budget.base import Budget
from compressor.budget.factors import partners, shared
from compressor.budget.ladder import Ladder, Lost
from compressor.budget.numbers import check_ratio, exact
from compressor.errors import NothingToPruneWarning

__all__ = ["Uniform"]


@dataclass(frozen=True, repr=False)
class Uniform(Budget):
    """Every group loses `ratio` of its channels, or as much of it as the limits of `Budget` allow.

    What stays is rounded up. Groups that are too narrow to lose one channel are named in a warning.

    Channels of attention have two factors, whole heads and dims of every head, each a group of its
    own. The ratio is that of the channels, not of each group: of k factors each keeps the k-th root
    of what is to stay, first those with fewer ranks, rounded up; the others take what is missing
    then. Half of 12 heads of 64 dims goes as 3 heads and 21 dims: 9 · 43 of 12 · 64 stay.

    >>> Uniform(0.5, ignore="stem", round_to=8)
    Uniform(0.5, ignore=('stem',), round_to=8)
    """

    ratio: float

    def __post_init__(self) -> None:
        """Check the ratio and the limits."""
        check_ratio("Uniform(ratio)", self.ratio)
        super().__post_init__()

    def lost(self, ladder: Ladder) -> Lost:
        """For each group its highest rung within the ratio, shared with the other factors of its channels."""
        levels = [allowance.levels for allowance in ladder.allowances]
        alone = [(position,) for position in range(len(levels)) if ladder.factors[position] == 1]
        stays = 1 - exact(self.ratio)
        lost = shared(ladder.graph, levels, dict.fromkeys((*alone, *ladder.graph.crossed), stays))
        whole = [position for position in range(len(levels)) if self._stays_whole(ladder, lost, position)]
        if whole and lost.any():
            named = ", ".join(_narrow(ladder, position) for position in whole)
            warnings.warn(
                f"{self!r}: {len(whole)} of {len(lost)} groups stay whole, because the ratio is "
                f"less than their smallest step: {named}",
                NothingToPruneWarning,
                stacklevel=4,
            )
        return lost

    def _stays_whole(self, ladder: Ladder, lost: Lost, position: int) -> bool:
        """Whether a group could shrink, and neither it nor another factor of its channels does."""
        together = [position, *partners(ladder.graph, position)]
        return len(ladder.allowances[position].levels) > 1 and not lost[together].any()

    def part(self, share: float) -> Uniform:
        """The ratio that leaves (1 - ratio)^share."""
        return replace(self, ratio=1 - (1 - self.ratio) ** share)


def _narrow(ladder: Ladder, position: int) -> str:
    group = ladder.graph.groups[position]
    step = int(ladder.allowances[position].levels[1]) * group.channels
    return f"{group.name} ({group.size * group.channels} channels, smallest step {step})"
