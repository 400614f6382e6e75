"""The time of one layer at any width, from the rows of a grid: straight between them, or in steps.

Kernels work in blocks of channels. A width inside a block costs as much as the whole block (a step), what it
is worth (a straight line), or more than either, when a width that no block fits sends the layer into another
kernel. Which of them holds is measured on a few rows off the grid, for each class of widths: by what power of
two they can be divided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.profiling.latency_table.fitting import fit
from compressor.profiling.latency_table.layers import Layer
from compressor.profiling.latency_table.rows import Row, base_of
from compressor.profiling.latency_table.widths import BLOCK, grid, residue_class, up

__all__ = ["Blend", "Shape", "Surface", "blends", "rows_of", "surface"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
_FINEST = 2048  # wider axes are looked up in steps


@dataclass(frozen=True, order=True)
class Blend:
    """Layers of a family that read multiples of `entering` and write whole blocks (`leaving` 16) or not."""

    family: str
    entering: int
    leaving: int


@dataclass(frozen=True)
class Shape:
    """A layer and how wide it is before anything is removed."""

    layer: Layer
    entering: int
    leaving: int

    @property
    def granule(self) -> int:
        """Widths are multiples of this."""
        return max(1, self.layer.groups)

    @property
    def is_tied(self) -> bool:
        """Whether it writes as many channels as it reads, always: depthwise."""
        return self.layer.groups == 0


Shapes = Sequence[Shape]
Blends = Mapping[Blend, tuple[float, float]]


def rows_of(shape: Shape) -> list[Row]:
    """The rows of a shape's grid, and those of what stands around them."""
    rows = [
        Row(shape.layer, c, d)
        for c in grid(shape.entering, shape.granule)
        for d in ([c] if shape.is_tied else grid(shape.leaving, shape.granule))
    ]
    return [*rows, *dict.fromkeys(map(base_of, rows))]


@dataclass(frozen=True, eq=False)
class Surface:
    """Times [entering / step + 1, leaving / step + 1] of one shape; one row for depthwise layers."""

    times: Floats
    steps: tuple[int, int]

    def at(self, entering: Counts, leaving: Counts) -> Floats:
        """The times [...] at these widths [...]."""
        rows = np.zeros_like(entering) if len(self.times) == 1 else -(-entering // self.steps[0])
        return np.asarray(self.times[rows, -(-leaving // self.steps[1])])


def surface(shape: Shape, rows: Mapping[Row, float], blend: Blends) -> Surface:
    """The times of a shape for all its widths, `rows` in ms; KeyError where one of `rows_of` is missing."""
    steps = tuple(-(-width // _FINEST) for width in (shape.entering, shape.leaving))
    entering, leaving = (
        np.minimum(np.arange(-(-width // step) + 1) * step, width)
        for width, step in zip((shape.entering, shape.leaving), steps, strict=True)
    )
    if shape.is_tied:
        times = _blended(shape, rows, blend, leaving, leaving)[None]
    else:
        times = _blended(shape, rows, blend, *np.broadcast_arrays(entering[:, None], leaving[None]))
    return Surface(times, (steps[0], steps[1]))


def _blended(
    shape: Shape, rows: Mapping[Row, float], blend: Blends, entering: Counts, leaving: Counts
) -> Floats:
    straight = _straight(shape, rows)
    plain = straight(entering, leaving)
    stepped = straight(up(entering, shape.entering), up(leaving, shape.leaving))
    times = plain.copy()
    classes = _classes(shape, entering, leaving)
    for (read, written), where in classes.items():
        line, step = blend.get(Blend(shape.layer.family, read, written), (1.0, 0.0))
        times[where] = line * plain[where] + step * stepped[where]
    return np.maximum(times, 0.0)


def _classes(shape: Shape, entering: Counts, leaving: Counts) -> dict[tuple[int, int], npt.NDArray[np.bool_]]:
    """Where each pair of classes holds that is not the grid's own."""
    read = _class(entering, grid(shape.entering, shape.granule))
    written = _class(leaving, grid(shape.leaving, shape.granule))
    written = np.where(written == BLOCK, BLOCK, 1)
    if shape.is_tied:
        read = _class(leaving, grid(shape.leaving, shape.granule))
    pairs = ((int(a), int(b)) for a in np.unique(read) for b in np.unique(written))
    found = {(a, b): (read == a) & (written == b) for a, b in pairs if (a, b) != (BLOCK, BLOCK)}
    return {pair: where for pair, where in found.items() if where.any()}


def _class(width: Counts, nodes: Sequence[int]) -> Counts:
    """The class of each width; those of the grid, and less than a block, count as whole blocks."""
    return np.where((width < BLOCK) | np.isin(width, nodes), BLOCK, residue_class(width))


def _straight(shape: Shape, rows: Mapping[Row, float]) -> Callable[[Counts, Counts], Floats]:
    """Times linear between the points of the grid, in both directions."""
    read, written = grid(shape.entering, shape.granule), grid(shape.leaving, shape.granule)
    if shape.is_tied:
        along = _with_zero(written, np.array([[_net(rows, Row(shape.layer, c, c))] for c in written]))
        return lambda _entering, leaving: np.interp(leaving, along[0], along[1][:, 0])
    values = np.array([[_net(rows, Row(shape.layer, c, d)) for d in written] for c in read])
    xs, values = _with_zero(read, values)
    ys, turned = _with_zero(written, values.T)
    values = turned.T

    def at(entering: Counts, leaving: Counts) -> Floats:
        i = np.clip(np.searchsorted(xs, entering, side="right") - 1, 0, max(len(xs) - 2, 0))
        j = np.clip(np.searchsorted(ys, leaving, side="right") - 1, 0, max(len(ys) - 2, 0))
        u = (entering - xs[i]) / np.maximum(xs[i + 1] - xs[i], 1)
        v = (leaving - ys[j]) / np.maximum(ys[j + 1] - ys[j], 1)
        near = values[i, j] * (1 - v) + values[i, j + 1] * v
        far = values[i + 1, j] * (1 - v) + values[i + 1, j + 1] * v
        return np.asarray(near * (1 - u) + far * u)

    return at


def _with_zero(points: Sequence[int], values: Floats) -> tuple[Counts, Floats]:
    """The grid with a point at no channels at all, on the line through the first two."""
    if len(points) > 1:
        slope = (values[1] - values[0]) / (points[1] - points[0])
        at_zero = np.clip(values[0] - slope * points[0], 0.0, values[0])
    else:
        at_zero = values[0] * 0.0
    return np.array([0, *points], dtype=np.int64), np.vstack([at_zero[None], values])


def _net(rows: Mapping[Row, float], row: Row) -> float:
    """The time of a layer without what stands around it."""
    return max(0.0, rows[row] - rows[base_of(row)])


def blends(
    shapes: Shapes, samples: Mapping[Row, Shape], rows: Mapping[Row, float]
) -> dict[Blend, tuple[float, float]]:
    """For each class of widths among the `samples` (rows off the grid) its straight and its step part."""
    straight = {shape: _straight(shape, rows) for shape in shapes}
    found: dict[Blend, list[tuple[float, float, float]]] = {}
    for row, shape in samples.items():
        entering, leaving = np.array([row.entering]), np.array([row.leaving])
        classes = list(_classes(shape, entering, leaving))
        if not classes:  # as narrow as a point of the grid
            continue
        ((read, written),) = classes
        plain = straight[shape](entering, leaving)
        stepped = straight[shape](up(entering, shape.entering), up(leaving, shape.leaving))
        key = Blend(shape.layer.family, read, written)
        found.setdefault(key, []).append((float(plain[0]), float(stepped[0]), _net(rows, row)))
    fitted = {}
    for key, measured in found.items():
        table = np.array([entry for entry in measured if entry[2] > 0])
        if len(table):
            line, step = fit(table[:, :2], table[:, 2], np.array([0.5, 0.5]), trust=1e-4)
            fitted[key] = (float(line), float(step))
    return fitted
