"""All that a report is made from, found out and proved once; sections only say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd

from compressor.core.graph import PINNED, Axis, Graph, Mask
from compressor.core.plan import Plan
from compressor.core.verify import Report as Proof
from compressor.filters import FilterReport
from compressor.profiling import Latency, Profile
from compressor.scoring import Scores
from compressor.search import Frontier, Sensitivity
from compressor.search.curves import labels

__all__ = ["Case", "GroupCut", "Width"]


@dataclass(frozen=True)
class Width:
    """The channels that one layer writes: `kept` of `size` stay, `free` could have gone."""

    layer: str
    kind: str
    size: int
    kept: int
    free: int


@dataclass(frozen=True)
class GroupCut:
    """A group of coupled channels: `removed[cell]` are those that went, counted from 0 in each cell.

    `units` counts the channels of all cells, `tensors` the axes of tensors that are cut with them.
    """

    name: str
    units: int
    removed: tuple[tuple[int, ...], ...]
    tensors: int
    statistics: bool

    @property
    def ranks(self) -> int:
        """How many went of each cell; every cell loses as many."""
        return len(self.removed[0])

    @property
    def lost(self) -> int:
        """How many went in all."""
        return self.ranks * len(self.removed)


@dataclass(frozen=True, eq=False)
class Case:
    """A model, what was removed from it, and what is known of the result.

    `removed` [n_units] flags the units that went. Profiles are on the inputs of the graph. `latencies`,
    `quality` and `filters` are of the original first and of the small model second.
    """

    graph: Graph
    plan: Plan
    removed: Mask
    proof: Proof
    tolerance: float
    seed: int
    before: Profile
    after: Profile
    latencies: tuple[Latency, ...] = ()
    quality: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    scores: Scores | None = None
    sensitivity: Sensitivity | None = None
    frontier: Frontier | None = None
    filters: tuple[FilterReport, FilterReport] | None = None

    @cached_property
    def widths(self) -> tuple[Width, ...]:
        """What each layer with a matrix or kernels writes, in the order of the model's definition."""
        modules = dict(self.graph.model.named_modules())
        chosen: dict[str, Axis] = {}
        for axis in self.graph.axes:
            module, _, _ = axis.tensor.rpartition(".")
            if axis.role != "writer" or self._is_vector(axis) or not _is_width(axis, modules.get(module)):
                continue
            layer = module or axis.tensor  # tensors of the model itself are layers of their own
            if layer not in chosen or (axis.free.any() and not chosen[layer].free.any()):
                chosen[layer] = axis
        kinds = self.graph.tape.module_types
        return tuple(
            Width(
                layer,
                kinds.get(layer, "parameter"),
                axis.size,
                axis.size - int(axis.gone(self.removed).sum()),
                int(axis.free.sum()),
            )
            for layer, axis in chosen.items()
        )

    @cached_property
    def groups(self) -> tuple[GroupCut, ...]:
        """Every group and what it lost. Groups of one name (heads and dims) are told apart by `#2`, `#3`."""
        names = labels(self.graph)
        owners = np.append(self.graph.group_of, PINNED)  # so that PINNED reads no group
        tensors = Counter(
            position for axis in self.graph.axes for position in np.unique(owners[axis.units]).tolist()
        )
        return tuple(
            GroupCut(
                names[position],
                sum(map(len, group.cells)),
                tuple(tuple(np.flatnonzero(self.removed[cell]).tolist()) for cell in group.cells),
                tensors[position],
                group.statistics,
            )
            for position, group in enumerate(self.graph.groups)
        )

    @property
    def pinned(self) -> dict[str, list[str]]:
        """Why channels could not go, each reason with the layers and how many of their channels."""
        found: dict[str, list[str]] = {}
        for axis in self.graph.axes:
            held = int((~axis.free).sum())
            # Extents of kernels are no news, nor are the vectors that follow a matrix.
            if not held or axis.axis > 1 or axis.role != "writer" or self._is_vector(axis):
                continue
            layer = axis.tensor.rpartition(".")[0] or axis.tensor
            reasons = self.graph.reasons.get((axis.tensor, axis.axis), ("no reason known",))
            where = f"{layer} axis {axis.axis}" if axis.axis else layer
            found.setdefault("; ".join(reasons), []).append(f"{where} ({held} of {axis.size})")
        return found

    def _is_vector(self, axis: Axis) -> bool:
        return len(self._shapes[axis.tensor]) < 2

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.graph.signature.tensors)


def _is_width(axis: Axis, module: nn.Module | None) -> bool:
    """Whether positions along the axis are channels: no kernel's extent, no rows of an embedding."""
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return axis.axis == 1
    return axis.axis < 2 or not isinstance(module, _ConvNd)
