"""A budget that keeps as many channels as there are directions, whatever that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from compressor.budget import Budget, Ladder
from compressor.core.graph import Group
from compressor.design.ranks import GroupRank, SpectralRanks
from compressor.errors import BudgetError

__all__ = ["SpectralWidths", "ranks_needed"]


@dataclass(frozen=True, repr=False)
class SpectralWidths(Budget):
    """Every group keeps its effective rank, rounded up, or what the limits of `Budget` allow.

    For a cost that is given, widths in proportion to effective ranks are `Macs(0.5, order=SpectralRanks())`.
    Heads and dims of attention stay, as they have no spectrum of their own. Of several steps of a gradual
    pruning each removes the same share of a group's channels.

    >>> from compressor.design import EnergyRank, SpectralRanks
    >>> SpectralWidths(SpectralRanks(EnergyRank(0.9)), round_to=8)
    SpectralWidths(SpectralRanks(EnergyRank(fraction=0.9)), round_to=8)
    """

    ranks: SpectralRanks = field(default_factory=SpectralRanks)
    way: float = field(default=1.0, kw_only=True)
    """How far on the way from all channels (0) to the effective rank (1), in equal ratios."""

    def __post_init__(self) -> None:
        if not isinstance(self.ranks, SpectralRanks):
            raise BudgetError(
                f"SpectralWidths(ranks) = {self.ranks!r}: SpectralRanks(ParticipationRatio()) is expected; "
                "for a cost that is given write Macs(0.5, order=SpectralRanks())"
            )
        if isinstance(self.way, bool) or not 0 < self.way <= 1:
            raise BudgetError(f"SpectralWidths(way={self.way!r}): above 0 and at most 1 is expected")
        super().__post_init__()

    def lost(self, ladder: Ladder) -> np.typing.NDArray[np.int64]:
        """For each group its highest rung that keeps the rank."""
        found = self.ranks.of(ladder.graph)
        lost = []
        for group, rank, allowance in zip(ladder.graph.groups, found, ladder.allowances, strict=True):
            most = group.size - ranks_needed(group, rank, self.way)
            fitting = int(np.searchsorted(allowance.levels, most, side="right"))
            lost.append(allowance.levels[max(0, fitting - 1)])
        return np.array(lost, dtype=np.int64)

    def part(self, share: float) -> SpectralWidths:
        """As far on the way as `share` says."""
        return replace(self, way=self.way * share)


def ranks_needed(group: Group, found: GroupRank, way: float = 1.0) -> int:
    """How many ranks of a group cover its effective rank, at least 1."""
    share = found.rank / group.size
    # Rounding of a spectrum must not ask for a channel more.
    return max(1, math.ceil(group.size * share**way - 1e-9)) if share else 1
