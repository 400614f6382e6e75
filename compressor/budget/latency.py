"""How much latency may be left, by a measured table of the runtime; widths are those that pay there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from compressor.budget.cost_fraction import CostFraction
from compressor.budget.ladder import Ladder, Order, by_score
from compressor.budget.per_cost import score_per_cost
from compressor.budget.widths import Widths
from compressor.core.graph import Graph
from compressor.errors import BudgetError, CompressorError, LatencyWarning
from compressor.profiling.cost import macs
from compressor.profiling.latency_table import LatencyTable
from compressor.profiling.priced import Priced
from compressor.profiling.promise import Promise

__all__ = ["Latency", "by_score_per_ms", "where_it_pays"]

Floats = npt.NDArray[np.float64]
_TINY = 1e-12


@dataclass(frozen=True, repr=False)
class Latency(CostFraction):
    """At most `fraction` of the latency is left that `table` predicts for one forward pass.

    Every group keeps one of the widths that the table found worth keeping: no wider one is as fast
    (`LatencyTable.rungs`); of these, multiples of `round_to`. `prune` measures at the end what became of the
    promise, on the table's runtime, both models in turn, and warns with LatencyWarning where more than
    1.1 * fraction of the latency is left, or where the table is of another machine.

        table = cp.profiling.latency_table(cp.capture(model, x))
        small = cp.prune(model, x, budget=cp.budget.Latency(0.5, table))

    For a fraction of the MACs with the widths that are fastest on the same runtime, give the table to
    `round_to`: `Macs(0.5, round_to=table)`.
    """

    table: LatencyTable

    def __post_init__(self) -> None:
        """Check the table, the fraction and the limits."""
        if not isinstance(self.table, LatencyTable):
            raise BudgetError(
                f"Latency(fraction, table): a table is expected, latency_table(capture(model, x)), got "
                f"{type(self.table).__name__}"
            )
        super().__post_init__()

    def cost(self, graph: Graph) -> Priced:
        """The predicted latency in ms; raises InputError where the table does not know the network."""
        return self.table.cost(graph)

    def widths(self) -> Widths:
        """Those of the table."""
        return self.table

    def check(
        self, model: nn.Module, small: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Promise | None:
        """Measure both models and warn with LatencyWarning where the promise is not kept, or cannot be held.

        None where it could not be measured. That is no error: the pruned model is what was asked for, and
        may have taken days.
        """
        try:
            promise = self.table.check(model, small, *args, fraction=self.fraction, kwargs=kwargs)
        except CompressorError as error:
            text = f"{self!r}: whether the promise is kept is not known: {error}"
            warnings.warn(text, LatencyWarning, stacklevel=3)
            return None
        if not promise.is_kept:
            warnings.warn(f"{self!r}: {promise}", LatencyWarning, stacklevel=3)
        return promise


def by_score_per_ms(table: LatencyTable) -> Order:
    """The order of steps by the score of the ranks that go, for each ms they free: see `by_score_per_mac`.

    For scores that are losses and add up: `Latency(0.5, table, order=by_score_per_ms(table))`.
    """

    def by_score_per_ms_of_table(ladder: Ladder) -> Sequence[Floats]:
        return score_per_cost(ladder, table.cost(ladder.graph))

    return by_score_per_ms_of_table


def where_it_pays(table: LatencyTable, order: Order = by_score) -> Order:
    """The `order` with those steps put off whose time lags behind their MACs, for the most speed.

    The key of a step is multiplied by the share of all MACs that its group frees by then, over the share of
    the latency: a step that frees 10 % of the MACs and 5 % of the time counts twice its score. As in
    `Macs(0.5, round_to=table, order=where_it_pays(table))`; scores must not be negative.
    """

    def order_where_it_pays(ladder: Ladder) -> Sequence[Floats]:
        work, time = (_freed(ladder, cost) for cost in (macs(ladder.graph), table.cost(ladder.graph)))
        return [
            key * np.where(ms > 0, share / np.maximum(ms, _TINY), np.inf)
            for key, share, ms in zip(order(ladder), work, time, strict=True)
        ]

    return order_where_it_pays


def _freed(ladder: Ladder, cost: Priced) -> list[Floats]:
    """For each group the share of the cost that each of its steps frees, all other groups whole."""
    at = cost.along(ladder.order)
    freed = []
    for position, allowance in enumerate(ladder.allowances):
        lost = np.zeros((len(allowance.levels), len(ladder.order)), dtype=np.int64)
        lost[1:, position] = allowance.levels[1:]
        left = np.asarray(at(lost), dtype=np.float64) / cost.total()
        freed.append(1 - left[1:])
    return freed
