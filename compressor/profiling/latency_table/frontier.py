"""Widths worth having: those for which no wider one is as fast, read off the measured curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from compressor.core.graph import Graph
from compressor.profiling.latency_table.rows import Row, base_of
from compressor.profiling.latency_table.surface import Blends, Shape, surface
from compressor.profiling.latency_table.widths import BLOCK, NARROW, residue_class
from compressor.profiling.priced import Priced

__all__ = ["free_multiple", "worth_keeping"]

_GAIN = 0.02  # of what a group can save at all; less is within the error of the curve
_FREE = 1.05


def worth_keeping(graph: Graph, cost: Priced, multiple: int) -> list[npt.NDArray[np.int64]]:
    """For each group the numbers of ranks lost, ascending from 0, each faster than all before it.

    Times are those of the group on its own, all others whole. What stays is a multiple of `multiple`
    channels.
    """
    order = [np.stack([cell[: group.size] for cell in group.cells]) for group in graph.groups]
    at = cost.along(order)
    found = []
    for position, group in enumerate(graph.groups):
        lost = np.zeros((group.size, len(graph.groups)), dtype=np.int64)
        lost[:, position] = np.arange(group.size)
        times = at(lost)
        least = _GAIN * max(float(times[0] - times.min()), 0.0)
        levels, best = [0], float(times[0])
        for level, time in enumerate(times.tolist()):
            if time < best - least and _is_whole((group.size - level) * group.channels, multiple):
                levels.append(level)
                best = time
        found.append(np.array(levels, dtype=np.int64))
    return found


def _is_whole(channels: int, multiple: int) -> bool:
    """Whether a width is a multiple, or less than a block, which kernels may not fill, and on the grid."""
    return channels % (multiple if channels >= BLOCK else min(multiple, NARROW)) == 0


def free_multiple(
    shapes: Sequence[Shape], samples: Mapping[Row, Shape], rows: Mapping[Row, float], blend: Blends
) -> int:
    """The largest power of two, up to a block, to which rounding up every width costs no time.

    Tested on the `samples`, for each class of widths apart; 1 where none is free.
    """
    surfaces = {shape: surface(shape, rows, blend) for shape in shapes}
    multiple = BLOCK
    while multiple > 1:
        spent: dict[int, tuple[float, float]] = {}
        for row, shape in samples.items():
            widths = np.array([[row.entering], [row.leaving]])
            granule = int(residue_class(widths).min())
            if granule >= multiple:
                continue
            rounded = np.minimum(-(-widths // multiple) * multiple, [[shape.entering], [shape.leaving]])
            before, after = spent.get(granule, (0.0, 0.0))
            taken = rows[row] - rows[base_of(row)]
            spent[granule] = before + taken, after + float(surfaces[shape].at(*rounded)[0])
        if spent and all(after <= _FREE * before for before, after in spent.values()):
            return multiple
        multiple //= 2
    return 1
