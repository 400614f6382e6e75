"""Budgets that say what fraction of a cost is left; a new cost is one small class here."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from compressor.budget.base import Budget
from compressor.budget.explain import what_holds
from compressor.budget.ladder import Ladder, Lost, Order, by_score
from compressor.budget.numbers import check_fraction, exact
from compressor.budget.search import fewest
from compressor.core.graph import Graph
from compressor.errors import BudgetError, UnreachableBudgetError
from compressor.profiling.cost import Cost, macs, params, weight_bytes
from compressor.profiling.priced import Priced

__all__ = ["Bytes", "CostFraction", "Macs", "Params"]

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
        """Check the fraction and the limits."""
        check_fraction(f"{type(self).__name__}(fraction)", self.fraction)
        super().__post_init__()

    @abstractmethod
    def cost(self, graph: Graph) -> Priced:
        """The cost that is limited."""

    def lost(self, ladder: Ladder) -> Lost:
        """The ranks lost by the fewest steps that meet the fraction."""
        cost = self.cost(ladder.graph)
        whole = cost.total()
        if not whole:
            raise BudgetError(f"{self!r}: the model has no {cost.name} at all, so there is nothing to limit")
        target = exact(self.fraction) * whole
        if isinstance(whole, int):
            target = math.floor(target)
        at = cost.along(ladder.order)
        lost = fewest(ladder.steps(self.order), ladder.start, at, target)
        if lost is None:
            least = at(ladder.end).item()
            raise UnreachableBudgetError(
                f"{self!r} asks for at most {_amount(target)} of {_amount(whole)} {cost.name}, and "
                f"{_amount(least)} is the least that can be left (fraction {least / whole:.4g}). "
                f"What holds the most:{self.holding(ladder)}\n"
                f"Ask for a larger fraction, or relax what holds them."
            )
        self._check_fixed(ladder, at, target, whole)
        return lost

    def holding(self, ladder: Ladder) -> str:
        """What is left when all that may go is gone, and why it stays, in lines."""
        return what_holds(ladder, self.cost(ladder.graph))

    def _check_fixed(
        self, ladder: Ladder, at: Callable[[Lost], npt.NDArray[Any]], target: float, whole: float
    ) -> None:
        """Refuse `ratios` that go beyond the fraction by more than one channel of each layer."""
        fixed = np.array([a.kind == "ratios" for a in ladder.allowances]) & (ladder.before == 0)
        eased = np.where(fixed, np.maximum(ladder.start - 1, 0), ladder.start)
        if (eased < ladder.start).any() and at(eased) < target:
            raise BudgetError(
                f"{self!r}: its `ratios` alone leave a fraction of "
                f"{at(ladder.start).item() / whole:.4g}; "
                "lower them, or ask for no larger fraction than that"
            )

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


def _amount(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
