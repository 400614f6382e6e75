"""Rows off the grid: widths of every class, a few for each family of layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from compressor.profiling.latency_table.rows import Row
from compressor.profiling.latency_table.surface import Shape
from compressor.profiling.latency_table.widths import BLOCK, grid, off_grid

__all__ = ["samples_of"]

_GRANULES = (1, 2, 4, 8)
_EACH = 8


def samples_of(shapes: Sequence[Shape]) -> dict[Row, Shape]:
    """Rows off the grid of `shapes`, the same ones for the same shapes."""
    generator = np.random.default_rng(0)
    families: dict[str, list[Shape]] = {}
    for shape in shapes:
        if max(shape.entering, shape.leaving) > BLOCK and shape.granule == 1:
            families.setdefault(shape.layer.family, []).append(shape)
    return {row: shape for family in families.values() for row, shape in _of_family(family, generator)}


def _of_family(shapes: list[Shape], generator: np.random.Generator) -> Iterator[tuple[Row, Shape]]:
    for read, exact in product((BLOCK, *_GRANULES), (True, False)):
        for number in range(_EACH):
            written = BLOCK if exact else _GRANULES[number % len(_GRANULES)]
            shape = shapes[int(generator.integers(len(shapes)))]
            entering = _width(shape.entering, read, generator)
            leaving = entering if shape.is_tied else _width(shape.leaving, written, generator)
            if entering is not None and leaving is not None and (read, written) != (BLOCK, BLOCK):
                yield Row(shape.layer, entering, leaving), shape


def _width(width: int, granule: int, generator: np.random.Generator) -> int | None:
    """A width of the class: one of the grid for whole blocks, and where the layer is as narrow as those."""
    if granule == BLOCK or width <= BLOCK:
        blocks = [c for c in grid(width) if c % BLOCK == 0] or [width]
        return int(generator.choice(blocks))
    return off_grid(width, granule, generator)
