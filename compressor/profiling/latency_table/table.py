"""The table itself: rows of one runtime on one machine, refined for the networks it was built for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from torch import nn

from compressor.core.graph import Graph, Mask
from compressor.core.plan import Plan
from compressor.errors import InputError
from compressor.profiling.cost import removed_by
from compressor.profiling.latency_table import storing
from compressor.profiling.latency_table.costing import LatencyCost, Parts, parts_of
from compressor.profiling.latency_table.frontier import worth_keeping
from compressor.profiling.latency_table.identity import Identity, identity_of, network_of
from compressor.profiling.latency_table.layers import layers_of
from compressor.profiling.latency_table.rows import Row, base_of
from compressor.profiling.latency_table.sampling import samples_of
from compressor.profiling.latency_table.surface import Shape, blends, rows_of
from compressor.profiling.latency_table.whole import Refinement
from compressor.profiling.promise import Promise, keeps_promise
from compressor.runtimes import Runtime

__all__ = ["LatencyTable", "rows_needed", "shapes_of"]


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Measured times of layers on one runtime and machine, and what they say of whole networks.

    Made by `latency_table(graph)`, for one network after the other; every row is measured once. `rows` are in
    ms. `predict` answers for the networks in `refinements`, see `network_of`.
    """

    identity: Identity
    runtime: Runtime
    reference_ms: float
    rows: Mapping[Row, float] = field(default_factory=dict, repr=False)
    refinements: Mapping[str, Refinement] = field(default_factory=dict, repr=False)
    _costs: WeakKeyDictionary[Graph, LatencyCost] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )

    def predict(self, graph: Graph, removal: Plan | Mask | None = None) -> float:
        """The latency in ms of a forward pass without what `removal` (a plan, or flags [n_units]) removes."""
        gone = removed_by(graph, removal) if isinstance(removal, Plan) else removal
        return self.cost(graph).total(gone)

    def cost(self, graph: Graph) -> LatencyCost:
        """The predicted latency as a cost for budgets; raises InputError for an unknown network."""
        if graph not in self._costs:
            refinement = self.refinement(graph)
            self._costs[graph] = LatencyCost(
                self.parts(graph), np.array(refinement.coefficients), refinement.cached
            )
        return self._costs[graph]

    def refinement(self, graph: Graph) -> Refinement:
        """What whole models of this network have shown; raises InputError for an unknown network."""
        found = self.refinements.get(network_of(graph))
        if found is None:
            raise InputError(
                f"the latency table knows {len(self.refinements)} networks and not this "
                f"{graph.signature.model} on these inputs: build it for the captured model, "
                f"latency_table(graph, runtime={self.runtime!r})"
            )
        return found

    def parts(self, graph: Graph) -> Parts:
        """What the latency of a graph is made of; raises InputError where rows are missing."""
        return parts_of(graph, self.rows, blends(*self._sampled(graph), self.rows))

    def _sampled(self, graph: Graph) -> tuple[Sequence[Shape], Mapping[Row, Shape]]:
        shapes = shapes_of(graph)
        return shapes, samples_of(shapes)

    def rungs(self, graph: Graph) -> list[npt.NDArray[np.int64]]:
        """For each group the numbers of ranks that it is worth losing: no wider width is as fast.

        What `round_to` of a budget takes a table for.
        """
        return worth_keeping(graph, self.cost(graph), self.refinement(graph).round_to)

    @property
    def round_to(self) -> int:
        """The multiple to which rounding widths up costs no time, of all networks in the table the largest.

        1 where a runtime takes any width for what it is worth.
        """
        return max((found.round_to for found in self.refinements.values()), default=1)

    @property
    def error(self) -> float:
        """The largest relative error of a prediction for a whole model that was not used to make it."""
        return max((found.error for found in self.refinements.values()), default=0.0)

    def check(
        self,
        model: nn.Module,
        small: nn.Module,
        *args: Any,
        fraction: float,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Promise:
        """Whether at most `fraction` of the latency of `model` is left in `small`, see `keeps_promise`.

        Both are run by the table's runtime, here. Raises InputError where the table was measured elsewhere.
        """
        elsewhere = identity_of(self.runtime).difference(self.identity)
        if elsewhere is not None:
            raise InputError(
                f"the promise of this latency table cannot be checked here: {elsewhere}; measure both "
                f"models where it was made"
            )
        return keeps_promise(model, small, *args, fraction=fraction, runtime=self.runtime, kwargs=kwargs)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the table as JSON; the file is whole or not there."""
        storing.save(self, Path(path))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> LatencyTable:
        """The table of a file, wherever it was measured.

        Raises FileError where it is no table, or of another version.
        """
        return storing.load(Path(path))

    def __reduce__(self) -> tuple[type[LatencyTable], tuple[Any, ...]]:
        """What is copied and pickled: not the costs of graphs."""
        fields = (self.identity, self.runtime, self.reference_ms, dict(self.rows), dict(self.refinements))
        return LatencyTable, fields

    def __repr__(self) -> str:
        return f"LatencyTable({self.runtime!r}, {len(self.rows)} rows, {len(self.refinements)} networks)"

    def __str__(self) -> str:
        head = f"{self.runtime!r}, {self.identity.version}, {self.identity.processor}"
        lines = [f"latency table of {head}: {len(self.rows)} rows, reference {self.reference_ms:.4f} ms"]
        for name, found in self.refinements.items():
            lines.append(
                f"  network {name}: {found.whole_ms:.3f} ms, error {found.error:.1%} on "
                f"{len(found.errors)} models left out, widths rounded to {found.round_to}"
            )
        return "\n".join(lines)


def shapes_of(graph: Graph) -> list[Shape]:
    """The distinct layers of a graph with their widths."""
    return list(dict.fromkeys(Shape(placed.layer, *placed.widths) for placed in layers_of(graph)))


def rows_needed(shapes: Sequence[Shape]) -> list[Row]:
    """Every row that predictions for layers of these shapes need."""
    rows = [row for shape in shapes for row in rows_of(shape)]
    samples = list(samples_of(shapes))
    return list(dict.fromkeys([*rows, *samples, *map(base_of, samples)]))
