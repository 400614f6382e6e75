"""Budgets that say what fraction of a cost is left; a new cost is one small class here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from compressor.budget.base import Budget
from compressor.budget.bounds import Bound, unmet
from compressor.budget.explain import what_holds
from compressor.budget.ladder import Ladder, Lost, Order, by_score, check_order
from compressor.budget.numbers import check_fraction
from compressor.budget.search import fewest
from compressor.core.graph import Graph
from compressor.errors import BudgetError, UnreachableBudgetError
from compressor.profiling.cost import Cost, macs, params, weight_bytes
from compressor.profiling.priced import Priced

__all__ = ["Bytes", "CostFraction", "Macs", "Params", "fewest_for"]

Self = TypeVar("Self", bound="CostFraction")


@dataclass(frozen=True, repr=False)
class CostFraction(Budget):
    """At most `fraction` of a cost is left; subclass it with the one method `cost`.

    The cost of the result is <= fraction * the cost of the whole model, and no layer could have its
    last removed channel (with `round_to`: its last step) back. `order` says in which order channels
    go: `by_score` ranks all groups together, `by_ratio` thins all groups alike.
    """

    fraction: float
    order: Order = field(default=by_score, kw_only=True)

    def __post_init__(self) -> None:
        """Check the fraction, the order and the limits."""
        check_fraction(f"{type(self).__name__}(fraction)", self.fraction)
        check_order(type(self).__name__, self.order)
        super().__post_init__()

    @abstractmethod
    def cost(self, graph: Graph) -> Priced:
        """The cost that is limited."""

    def lost(self, ladder: Ladder) -> Lost:
        """The ranks lost by the fewest steps that meet the fraction."""
        return fewest_for(self, (self,), ladder, self.order)

    def bound(self, ladder: Ladder) -> Bound:
        """What is asked of this ladder; raises BudgetError where the model has nothing of the cost."""
        return Bound.of(self.cost(ladder.graph), self.fraction, ladder, repr(self))

    def holding(self, ladder: Ladder) -> str:
        """What is left when all that may go is gone, and why it stays, in lines."""
        return what_holds(ladder, self.cost(ladder.graph))

    def part(self: Self, share: float) -> Self:
        """The fraction that leaves fraction^share."""
        return replace(self, fraction=self.fraction**share)


@dataclass(frozen=True, repr=False)
class Macs(CostFraction):
    """At most `fraction` of the multiply-accumulates is left.

    >>> Macs(0.5, round_to=8, ratios={"layer3.*": 0.2})
    Macs(0.5, ratios={'layer3.*': 0.2}, round_to=8)
    """

    def cost(self, graph: Graph) -> Cost:
        """Multiply-accumulates for the example inputs, see `compressor.profiling.macs`."""
        return macs(graph)


@dataclass(frozen=True, repr=False)
class Params(CostFraction):
    """At most `fraction` of the parameters is left.

    >>> Params(0.25, min_channels=4)
    Params(0.25, min_channels=4)
    """

    def cost(self, graph: Graph) -> Cost:
        """Elements of all parameters, see `compressor.profiling.params`."""
        return params(graph)


@dataclass(frozen=True, repr=False)
class Bytes(CostFraction):
    """At most `fraction` of the bytes of a saved model is left.

    >>> Bytes(0.25, ignore="head")
    Bytes(0.25, ignore=('head',))
    """

    def cost(self, graph: Graph) -> Cost:
        """Bytes of parameters and persistent buffers, see `compressor.profiling.weight_bytes`."""
        return weight_bytes(graph)


def fewest_for(budget: Budget, parts: Sequence[CostFraction], ladder: Ladder, order: Order) -> Lost:
    """The ranks lost [n_groups] by the fewest steps in this order that meet all `parts` of a budget.

    Raises UnreachableBudgetError where that cannot be, with each part that cannot be met, and BudgetError
    where `ratios` alone go beyond all of them by more than one channel of each layer.
    """
    bounds = [part.bound(ladder) for part in parts]
    lost = fewest(ladder.steps(order), ladder.start, lambda lost: unmet(bounds, lost), 0)
    if lost is None:
        raise UnreachableBudgetError(_out_of_reach(budget, parts, bounds, ladder))
    fixed = np.array([a.kind == "ratios" for a in ladder.allowances]) & (ladder.before == 0)
    eased = np.where(fixed, np.maximum(ladder.start - 1, 0), ladder.start)
    if (eased < ladder.start).any() and all(bound.at(eased) < bound.target for bound in bounds):
        left = ", ".join(f"{bound.at(ladder.start).item() / bound.whole:.4g}" for bound in bounds)
        raise BudgetError(
            f"{budget!r}: its `ratios` alone leave a fraction of {left}; lower them, or ask for no larger "
            "fraction than that"
        )
    return lost


def _out_of_reach(
    budget: Budget, parts: Sequence[CostFraction], bounds: Sequence[Bound], ladder: Ladder
) -> str:
    """Which parts cannot be met, how far one gets with each, and what holds them."""
    lines = []
    for part, bound in zip(parts, bounds, strict=True):
        if bound.at(ladder.end) > bound.target:
            holding = part.holding(ladder)
            lines.append(f"{part!r} {bound.asks(ladder.end)}. What holds the most:{holding}")
        elif part is not budget:
            lines.append(f"{part!r} could be met: {bound.asks(ladder.end)}")
    head = [] if parts[0] is budget else [f"{budget!r}: not all of it can be met"]
    return "\n".join([*head, *lines, "Ask for a larger fraction, or relax what holds them."])
