"""Budgets by measured sensitivity: how far quality may fall, and the least fall for what has to go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from compressor.budget import All, Budget, Ladder
from compressor.budget.all_of import parts_of
from compressor.budget.cost_fraction import CostFraction, fewest_for
from compressor.budget.ladder import Lost, by_score
from compressor.budget.widths import Widths
from compressor.errors import InputError, UnreachableBudgetError
from compressor.scoring import Scores
from compressor.search.allocation import Allocation
from compressor.search.curves import Sensitivity, check_drop, labels

__all__ = ["LeastDrop", "MaxDrop"]


@dataclass(frozen=True, repr=False)
class _BySensitivity(Budget):
    """What budgets by sensitivity share: the scores must rank channels as the measured cuts did."""

    sensitivity: Sensitivity = field(hash=False)

    def __post_init__(self) -> None:
        """Check the sensitivity and the limits."""
        if not isinstance(self.sensitivity, Sensitivity):
            raise InputError(
                f"{type(self).__name__}: a Sensitivity is expected first, search.sensitivity(model, x, …), "
                f"got {type(self.sensitivity).__name__}"
            )
        super().__post_init__()

    def choose(
        self,
        scores: Scores,
        *,
        removed: np.ndarray | None = None,
        held: Mapping[int, str] | None = None,
    ) -> np.ndarray:
        """See `Budget.choose`; raises InputError for scores by another scorer than the sensitivity's."""
        if isinstance(scores, Scores) and scores.scorer != self.sensitivity.scorer:
            raise InputError(
                f"{self!r}: the sensitivity was measured with channels ranked by {self.sensitivity.scorer}, "
                f"these scores are by {scores.scorer}; take that scorer, or measure with this one"
            )
        return super().choose(scores, removed=removed, held=held)


@dataclass(frozen=True, repr=False)
class MaxDrop(_BySensitivity):
    """Every group loses the most it was measured to lose alone for a drop of at most `max_drop`.

    What all groups together lose may cost more, or less. Groups that were not measured stay whole.

    *Source: H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf, 2017, arXiv 1608.08710, section 3.2.*

    >>> MaxDrop(Sensitivity("Net", "0f", "Norm()", "accuracy", 0, 0.95, 100, (0.5,), ()), 0.01)
    MaxDrop(Sensitivity(Net: accuracy, 0 groups), 0.01)
    """

    max_drop: float

    def __post_init__(self) -> None:
        """Check the drop and the limits."""
        check_drop(self.max_drop)
        super().__post_init__()

    def lost(self, ladder: Ladder) -> Lost:
        """For each group its highest rung within what it tolerates."""
        self.sensitivity.drops_of(ladder.graph)  # raises for another model's
        whole = self.sensitivity.quality
        tolerated = {curve.group: curve.within(whole, self.max_drop) for curve in self.sensitivity.curves}
        most = [tolerated.get(name, 0) for name in labels(ladder.graph)]
        lost = [
            allowance.levels[max(0, int(np.searchsorted(allowance.levels, n, side="right")) - 1)]
            for allowance, n in zip(ladder.allowances, most, strict=True)
        ]
        return np.array(lost, dtype=np.int64)

    def part(self, share: float) -> MaxDrop:
        """That share of the drop."""
        return replace(self, max_drop=self.max_drop * share)


@dataclass(frozen=True, repr=False)
class LeastDrop(_BySensitivity):
    """The fractions `within` are met with the least predicted drop: the sum of what each group loses alone.

    `within` is one fraction of a cost or several, `LeastDrop(found, [Macs(0.5), Memory(0.6)])`; limits are
    given here. No group goes beyond the largest ratio that was measured of it, and groups that were not
    measured stay whole. How ratios are found: see `Allocation`. The sum is a prediction: cuts add up for a
    few groups, and less and less the more go. Raises UnreachableBudgetError with what cannot be met.

    >>> from compressor.budget import Macs
    >>> LeastDrop(Sensitivity("Net", "0f", "Norm()", "accuracy", 0, 0.95, 100, (0.5,), ()), Macs(0.5))
    LeastDrop(Sensitivity(Net: accuracy, 0 groups), (Macs(0.5),))
    """

    within: CostFraction | Sequence[CostFraction] = field(hash=False)

    def __post_init__(self) -> None:
        """Check the parts and the limits."""
        object.__setattr__(self, "within", parts_of(self.within, owner="LeastDrop"))
        super().__post_init__()

    @property
    def parts(self) -> tuple[CostFraction, ...]:
        """The fractions that have to be met."""
        return parts_of(self.within, owner="LeastDrop")

    def lost(self, ladder: Ladder) -> Lost:
        """The ranks lost by the allocation of the least predicted drop that was found."""
        fewest_for(self, self.parts, ladder, by_score)  # raises where no choice of ratios meets the parts
        found = self._allocation(ladder).least()
        if found is None:
            raise UnreachableBudgetError(
                f"{self!r}: the parts cannot be met with the ratios that were measured, at most "
                f"{max(self.sensitivity.ratios):g} of a group; measure larger ones, or more groups"
            )
        return found

    def predicted_drop(self, scores: Scores) -> float:
        """How far the quality is predicted to fall for what this chooses from `scores`."""
        removed = self.choose(scores)
        counts = [int(removed[group.cells[0]].sum()) for group in scores.graph.groups]
        drops = self.sensitivity.drops_of(scores.graph)
        return sum(float(fallen[min(n, len(fallen) - 1)]) for fallen, n in zip(drops, counts, strict=True))

    def _allocation(self, ladder: Ladder) -> Allocation:
        drops = self.sensitivity.drops_of(ladder.graph)
        bounds = [part.bound(ladder) for part in self.parts]
        levels = [
            allowance.levels[(allowance.levels < len(fallen)) | (allowance.levels == allowance.levels[0])]
            for allowance, fallen in zip(ladder.allowances, drops, strict=True)
        ]
        return Allocation.of(levels, drops, bounds)

    def widths(self) -> Widths | None:
        """Those that pay by all tables of the parts."""
        return All(self.parts).widths()

    def check(
        self, model: nn.Module, small: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> object | None:
        """Hold the pruned model to what the parts promised, see `Budget.check`."""
        return All(self.parts).check(model, small, args, kwargs)

    def part(self, share: float) -> LeastDrop:
        """The fractions that leave fraction^share each."""
        return replace(self, within=tuple(part.part(share) for part in self.parts))
