"""Labels: integers that say which channel a tensor position belongs to, and what is known of them.

A `Layer` labels the positions of one axis of a tensor; along all other axes nothing changes. A
`Value` is a tensor seen through its layers. The `LabelSpace` collects facts while rules run (these
labels are the same channel, those are pinned); nothing is solved before the end.

Several layers along one axis are *factors*: a position goes when its label in any of them goes. So an
axis of heads times dims has two, whole heads and dims of every head.

Label -1 (OPAQUE) marks positions whose values vary without a label: what meets them is pinned. Label
-2 (NEUTRAL) marks positions that a factor says nothing about. *Soft* layers belong to uniform
constants (zeros, ones, an expanded axis), which take the labels they meet.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["NEUTRAL", "OPAQUE", "Ids", "LabelSpace", "Layer", "Origin", "ParameterAxis", "Split", "Value"]

OPAQUE = -1
NEUTRAL = -2
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Labels `ids` [length of the axis] along one axis of a tensor."""

    axis: int
    ids: Ids
    soft: bool = False

    def on(self, axis: int) -> Layer:
        """The same labels along another axis."""
        return Layer(axis, self.ids, self.soft)

    def with_ids(self, ids: Ids) -> Layer:
        """Other labels along the same axis."""
        return Layer(self.axis, ids, self.soft)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor while labels run: its shape, its layers, and whether it depends on parameters only.

    An axis of length one carries no layer. `name` is set for a bare parameter or buffer. `silent` is
    true for a view or copy of one: zero wherever slices of the parameter are set to zero.
    """

    shape: tuple[int, ...]
    layers: tuple[Layer, ...] = ()
    static: bool = False
    name: str = ""
    silent: bool = False

    def over(self, axis: int) -> tuple[Layer, ...]:
        """The layers along `axis`."""
        return tuple(layer for layer in self.layers if layer.axis == axis)

    def ids(self, axis: int) -> Ids:
        """The labels along `axis`, [length] or [factors, length]; OPAQUE where it has none."""
        found = self.over(axis)
        if len(found) > 1:
            return np.stack([layer.ids for layer in found])
        if found:
            return found[0].ids
        return np.full(self.shape[axis], OPAQUE, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ParameterAxis:
    """Labels `ids` [factors, size] belong to this axis of this tensor, see `graph.Axis`."""

    tensor: str
    axis: int
    ids: Ids
    blocks: int = 1


# What names an axis that labels were first given to: a parameter's, or one that an operator made.
Origin = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """These labels [n] fall into factors: label i sits at index `parts[k][i]` of factor k."""

    ids: Ids
    parts: tuple[Ids, ...]
    op: int


@dataclass(slots=True)
class LabelSpace:
    """All labels of one model, and the facts that rules state about them."""

    factors: Mapping[Origin, tuple[Ids, ...]] = field(default_factory=dict)
    count: int = 0
    axes: list[ParameterAxis] = field(default_factory=list)
    origins: list[tuple[Origin, int, int, int]] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    provisional: list[Ids] = field(default_factory=list)
    edges: list[tuple[Ids, Ids]] = field(default_factory=list)
    pins: list[tuple[Ids, str]] = field(default_factory=list)
    equals: list[tuple[Ids, str]] = field(default_factory=list)
    readers: list[Ids] = field(default_factory=list)
    statistics: list[Ids] = field(default_factory=list)

    def new(self, count: int) -> Ids:
        """`count` labels that nobody has yet."""
        start, self.count = self.count, self.count + count
        return np.arange(start, self.count, dtype=np.int64)

    def axis(self, origin: Origin, size: int) -> tuple[Ids, ...]:
        """New labels [size] for each factor of an axis; one factor unless `factors` says more."""
        columns = self.factors.get(origin)
        if columns is None:
            self.origins.append((origin, 0, self.count, size))
            return (self.new(size),)
        found = []
        for position, column in enumerate(columns):
            values = int(column.max()) + 1
            self.origins.append((origin, position, self.count, values))
            ids = self.new(values)
            found.append(np.where(column >= 0, ids[np.maximum(column, 0)], NEUTRAL))
        return tuple(found)

    def parameter_axis(self, tensor: str, axis: int, size: int, blocks: int = 1) -> tuple[Ids, ...]:
        """New labels [size] for each factor of one axis of a parameter."""
        factors = self.axis((tensor, axis), size)
        ids = factors[0][None] if len(factors) == 1 else np.stack(factors)
        self.axes.append(ParameterAxis(tensor, axis, ids, blocks))
        return factors

    def merge(self, a: Ids, b: Ids, reason: str) -> None:
        """State that labels which meet position by position (after broadcasting) are one channel."""
        if a is b:
            return
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        a, b = a.ravel(), b.ravel()
        opaque_a, opaque_b = a < 0, b < 0
        if np.count_nonzero(opaque_a) or np.count_nonzero(opaque_b):  # a fraction of what `any` takes
            self.pin(a[opaque_b & ~opaque_a], reason)
            self.pin(b[opaque_a & ~opaque_b], reason)
            both = ~(opaque_a | opaque_b)
            a, b = a[both], b[both]
        if a.size:
            self.edges.append((a, b))

    def pin(self, ids: Ids, reason: str) -> None:
        """State that these labels cannot be removed, and why."""
        ids = ids[ids >= 0].ravel()
        if ids.size:
            self.pins.append((ids, reason))

    def pin_factor(self, tensor: str, axis: int, factor: int, channels: Sequence[int], reason: str) -> None:
        """State that one factor of a parameter's axis takes none of these channels away, and why."""
        for known in self.axes:
            if (known.tensor, known.axis) == (tensor, axis) and factor < len(known.ids):
                self.pin(known.ids[factor, np.asarray(channels, dtype=np.int64)], reason)

    def equal(self, rows: Ids, reason: str) -> None:
        """State that every row of `rows` [blocks, width] must lose equally many positions."""
        if (rows == NEUTRAL).all():
            return
        if (rows < 0).any():
            self.pin(rows, f"{reason}, and some of them are fixed")
        else:
            self.equals.append((rows, reason))

    def read(self, ids: Ids) -> None:
        """State that the parameter axes of these labels consume channels."""
        ids = ids[ids >= 0].ravel()
        if ids.size:
            self.readers.append(ids)

    def solve(self) -> Ids:
        """The class of each label [count]: the smallest label it is connected with."""
        parent = np.arange(self.count, dtype=np.int64)
        if not self.edges:
            return parent
        a = np.concatenate([edge[0] for edge in self.edges])
        b = np.concatenate([edge[1] for edge in self.edges])
        while True:
            root_a, root_b = parent[a], parent[b]
            apart = root_a != root_b
            if not apart.any():
                return parent
            a, b, root_a, root_b = a[apart], b[apart], root_a[apart], root_b[apart]
            # Hook the larger root under the smaller; of several candidates any one will do.
            parent[np.maximum(root_a, root_b)] = np.minimum(root_a, root_b)
            while True:
                above = parent[parent]
                if np.array_equal(above, parent):
                    break
                parent = above
