"""How much latency may be left, by a measured table of the runtime; widths are those that pay there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from compressor.budget.cost_fraction import CostFraction
from compressor.budget.ladder import Ladder
from compressor.budget.per_cost import score_per_cost
from compressor.budget.widths import Widths
from compressor.core.graph import Graph
from compressor.errors import BudgetError, LatencyWarning
from compressor.profiling.latency_table import LatencyTable
from compressor.profiling.priced import Priced

__all__ = ["Latency", "by_score_per_ms"]


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
    ) -> None:
        """Measure both models and warn with LatencyWarning where the promise is not kept."""
        elsewhere = self.table.elsewhere()
        if elsewhere is not None:
            warnings.warn(
                f"{self!r}: the promise was not checked, as the table was not measured here: {elsewhere}",
                LatencyWarning,
                stacklevel=3,
            )
            return
        promise = self.table.check(model, small, *args, fraction=self.fraction, kwargs=kwargs)
        if not promise.is_kept:
            warnings.warn(f"{self!r}: {promise}", LatencyWarning, stacklevel=3)


def by_score_per_ms(
    table: LatencyTable,
) -> Callable[[Ladder], Sequence[npt.NDArray[np.float64]]]:
    """The order of steps by the score of the ranks that go, for each ms they free: see `by_score_per_mac`.

    For scores that are losses and add up: `Latency(0.5, table, order=by_score_per_ms(table))`.
    """

    def by_score_per_ms_of_table(ladder: Ladder) -> Sequence[npt.NDArray[np.float64]]:
        return score_per_cost(ladder, table.cost(ladder.graph))

    return by_score_per_ms_of_table
