"""Labels: integers that say which channel a tensor position belongs to, and what is known of them.

A `Layer` labels the positions of one axis of a tensor; along all other axes nothing changes. A
`Value` is a tensor seen through its layers. The `LabelSpace` collects facts while rules run (these
labels are the same channel, those are pinned); nothing is solved before the end.

Label -1 (OPAQUE) marks positions whose values vary without a label: what meets them is pinned.
*Soft* layers belong to uniform constants (zeros, ones, an expanded axis), which take the labels they
meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["OPAQUE", "Ids", "LabelSpace", "Layer", "ParameterAxis", "Value"]

OPAQUE = -1
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
        """The labels along `axis`; OPAQUE where it has none."""
        for layer in self.layers:
            if layer.axis == axis:
                return layer.ids
        return np.full(self.shape[axis], OPAQUE, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ParameterAxis:
    """Labels `start … start + size - 1` belong to this axis of this tensor, see `graph.Axis`."""

    tensor: str
    axis: int
    start: int
    size: int
    blocks: int = 1


@dataclass(slots=True)
class LabelSpace:
    """All labels of one model, and the facts that rules state about them."""

    count: int = 0
    axes: list[ParameterAxis] = field(default_factory=list)
    edges: list[tuple[Ids, Ids]] = field(default_factory=list)
    pins: list[tuple[Ids, str]] = field(default_factory=list)
    equals: list[tuple[Ids, str]] = field(default_factory=list)
    readers: list[Ids] = field(default_factory=list)
    statistics: list[Ids] = field(default_factory=list)
    crossings: list[tuple[Ids, Ids, str]] = field(default_factory=list)
    alternatives: list[tuple[tuple[Ids, ...], Ids, str]] = field(default_factory=list)

    def new(self, count: int) -> Ids:
        """`count` labels that nobody has yet."""
        start, self.count = self.count, self.count + count
        return np.arange(start, self.count, dtype=np.int64)

    def parameter_axis(self, tensor: str, axis: int, size: int, blocks: int = 1) -> Ids:
        """New labels for one axis of a parameter."""
        ids = self.new(size)
        self.axes.append(ParameterAxis(tensor, axis, int(ids[0]), size, blocks))
        return ids

    def merge(self, a: Ids, b: Ids, reason: str) -> None:
        """State that labels which meet position by position (after broadcasting) are one channel."""
        if a is b:
            return
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        a, b = a.ravel(), b.ravel()
        opaque_a, opaque_b = a < 0, b < 0
        if opaque_a.any() or opaque_b.any():
            self.pin(a[opaque_b & ~opaque_a], reason)
            self.pin(b[opaque_a & ~opaque_b], reason)
            both = ~(opaque_a | opaque_b)
            a, b = a[both], b[both]
        if a.size:
            self.edges.append((a, b))

    def merge_one(self, several: tuple[Ids, ...], ids: Ids, reason: str) -> None:
        """State that `ids` are the channels of one of `several` axes that were flattened into one.

        Which one is decided at the end: the first that is not pinned. The others are.
        """
        self.alternatives.append((several, ids, reason))

    def pin(self, ids: Ids, reason: str) -> None:
        """State that these labels cannot be removed, and why."""
        ids = ids[ids >= 0].ravel()
        if ids.size:
            self.pins.append((ids, reason))

    def pin_axis(self, tensor: str, axis: int, channels: Sequence[int], reason: str) -> None:
        """State that these channels of a parameter's axis cannot be removed, and why."""
        for known in self.axes:
            if (known.tensor, known.axis) == (tensor, axis):
                self.pin(known.start + np.asarray(channels, dtype=np.int64), reason)

    def equal(self, rows: Ids, reason: str) -> None:
        """State that every row of `rows` [blocks, width] must lose equally many labels."""
        if (rows < 0).any():
            self.pin(rows, f"{reason}, and some of them are fixed")
        else:
            self.equals.append((rows, reason))

    def cross(self, a: Ids, b: Ids, reason: str) -> None:
        """State that two channel axes were flattened into one: only one of them may shrink."""
        self.crossings.append((a, b, reason))

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
