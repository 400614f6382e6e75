"""Several costs limited at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import reduce
from typing import Any

import numpy as np
from torch import nn

from compressor.budget.base import Budget
from compressor.budget.cost_fraction import CostFraction, fewest_for
from compressor.budget.ladder import Ladder, Lost, Order, by_score, check_order
from compressor.budget.widths import Widths
from compressor.core.graph import Graph
from compressor.errors import BudgetError

__all__ = ["All", "parts_of"]


@dataclass(frozen=True, repr=False)
class All(Budget):
    """Every one of several fractions of costs is met: `All([Macs(0.5), Memory(0.6)])`.

    Channels go in one `order` until the last of the parts is met, and no layer could have its last removed
    channel (with `round_to`: its last step) back. Limits are given here, and to none of the parts. With a
    `Latency` among them, layers keep widths that pay by its table. Raises UnreachableBudgetError with each
    part that cannot be met, and how far one gets with it.

    >>> from compressor.budget import Macs, Params
    >>> All([Macs(0.5), Params(0.4)], round_to=8)
    All((Macs(0.5), Params(0.4)), round_to=8)
    """

    parts: Sequence[CostFraction] = field(hash=False)
    order: Order = field(default=by_score, kw_only=True)

    def __post_init__(self) -> None:
        """Check the parts, the order and the limits."""
        object.__setattr__(self, "parts", parts_of(self.parts, owner="All"))
        check_order("All", self.order)
        super().__post_init__()

    def lost(self, ladder: Ladder) -> Lost:
        """The ranks lost by the fewest steps that meet all parts."""
        return fewest_for(self, self.parts, ladder, self.order)

    def widths(self) -> Widths | None:
        """Those that pay by all tables of the parts."""
        found = [widths for part in self.parts if (widths := part.widths()) is not None]
        return found[0] if len(found) == 1 else EveryTable(tuple(found)) if found else None

    def check(
        self, model: nn.Module, small: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> object | None:
        """Hold the pruned model to what the parts promised, see `Budget.check`."""
        found = [part.check(model, small, args, kwargs) for part in self.parts]
        return "; ".join(str(held) for held in found if held is not None) or None

    def part(self, share: float) -> All:
        """The fractions that leave fraction^share each."""
        return replace(self, parts=tuple(part.part(share) for part in self.parts))


def parts_of(given: object, *, owner: str) -> tuple[CostFraction, ...]:
    """The fractions of costs in `given`, one or a list; raises BudgetError for anything else.

    Limits of their own are refused, as they are limits of `owner`, for all of its parts.
    """
    parts = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    known: list[CostFraction] = []
    if not parts:
        raise BudgetError(f"{owner}([]): at least one cost to limit is expected, such as Macs(0.5)")
    for part in parts:
        if not isinstance(part, CostFraction):
            raise BudgetError(
                f"{owner}: {part!r} ({type(part).__name__}) is no fraction of a cost; expected Macs, Params, "
                f"Bytes, Memory or Latency. Ratios of layers are a limit: {owner}(…, ratios=…, max_ratio=…)"
            )
        for option in fields(part):
            default = {} if option.default is MISSING else option.default
            if option.kw_only and getattr(part, option.name) != default:
                raise BudgetError(
                    f"{owner}: {part!r} has a limit of its own; give {option.name} to {owner}, where it "
                    "holds for all parts"
                )
        known.append(part)
    return tuple(known)


@dataclass(frozen=True)
class EveryTable(Widths):
    """The widths that all of several ways of choosing them allow."""

    each: tuple[Widths, ...]

    def rungs(self, graph: Graph) -> list[Lost]:
        found = [each.rungs(graph) for each in self.each]
        return [reduce(np.intersect1d, of_group) for of_group in zip(*found, strict=True)]
