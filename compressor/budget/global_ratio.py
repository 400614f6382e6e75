"""One ratio for the whole model, one ranking for all its channels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from compressor.budget.base import Budget
from compressor.budget.explain import why_nothing
from compressor.budget.factors import channels
from compressor.budget.ladder import Ladder, Lost, by_score
from compressor.budget.numbers import check_ratio, exact
from compressor.budget.search import at_most
from compressor.errors import UnreachableBudgetError

__all__ = ["Global"]


@dataclass(frozen=True, repr=False)
class Global(Budget):
    """The lowest scores of all groups go, until `ratio` of all channels is removed.

    Counted are the channels of all groups that are neither ignored nor have a ratio of their own.
    The count is exact, whatever the scores: the largest number of removed channels within the ratio
    that whole steps can make. A channel of several factors (heads and dims of heads) counts once: a
    head takes with it what its dims have left. Scores of different groups are compared as they are:
    see the scorers' `normalize`.

    >>> Global(0.3, max_ratio=0.8)
    Global(0.3, max_ratio=0.8)
    """

    ratio: float

    def __post_init__(self) -> None:
        """Check the ratio and the limits."""
        check_ratio("Global(ratio)", self.ratio)
        super().__post_init__()

    def lost(self, ladder: Ladder) -> Lost:
        """The ranks lost by one threshold for all groups."""
        counted = [i for i, a in enumerate(ladder.allowances) if a.kind not in ("ignore", "ratios")]
        kept = channels(ladder.graph, ladder.order, counted).along(ladder.order)
        # What groups with a ratio of their own take of channels that others share is not counted.
        before = ladder.start.copy()
        before[counted] = 0
        total = int(kept(before))
        target = math.floor(exact(self.ratio) * total)
        most = total - int(kept(ladder.end))
        if target > most:
            raise UnreachableBudgetError(
                f"{self!r} asks for {target} of {total} channels to go, and at most {most} can "
                f"(ratio {most / max(1, total):.4g}): {why_nothing(ladder)}; lower the ratio, or relax what "
                "holds them"
            )
        return at_most(ladder.steps(by_score), ladder.start, kept, total - target)

    def part(self, share: float) -> Global:
        """The ratio that leaves (1 - ratio)^share."""
        return replace(self, ratio=1 - (1 - self.ratio) ** share)
