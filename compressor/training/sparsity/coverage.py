"""Which writers are still heard when the scales of some norms are zero: paths on the tape."""

from __future__ import annotations

from collections.abc import Set
from itertools import chain

import numpy as np

from compressor.core.channels import gone
from compressor.core.graph import Graph, Mask
from compressor.core.tape import Op, named_tensors, references

__all__ = ["heard_without"]


def heard_without(graph: Graph, removed: Mask, silent: Set[str]) -> set[str]:
    """The writers of `removed` [n_units] channels that a reader hears past the `silent` norm modules.

    Followed from each weight are the values that have its removed channels along an axis. Where an
    operator takes such a value and gives none, it has read them; operators of a silent module do not
    count, as what they give is the same for every input. A weight that the tape does not show counts as
    heard.
    """
    tensors = named_tensors(graph.model)
    readers = _readers_of_values(graph)
    found = set()
    for axis in graph.axes:
        mine = axis.gone(removed)
        if axis.role != "writer" or tensors[axis.tensor].dim() < 2 or not mine.any():
            continue
        start = graph.tape.by_name.get(axis.tensor)
        units = np.zeros(graph.n_units + 1, dtype=bool)
        units[axis.units[..., mine]] = True
        units[:-1] &= removed
        units[-1] = False
        if start is None or _is_heard(graph, start, units, readers, silent):
            found.add(axis.tensor)
    return found


def _readers_of_values(graph: Graph) -> dict[int, list[Op]]:
    """The operators that take each value of the tape."""
    found: dict[int, list[Op]] = {}
    for op in graph.tape.ops:
        for value in dict.fromkeys(references((op.args, tuple(op.kwargs.values())))):
            found.setdefault(value, []).append(op)
    return found


def _is_heard(graph: Graph, start: int, units: Mask, readers: dict[int, list[Op]], silent: Set[str]) -> bool:
    seen, todo = {start}, [start]
    while todo:
        for op in readers.get(todo.pop(), ()):
            if op.module in silent:
                continue
            results = [out for out in chain(op.outputs, (left for _, left in op.mutated)) if out is not None]
            carrying = [out for out in results if _carries(graph, out, units)]
            if results and not carrying:
                return True
            todo += [out for out in carrying if out not in seen]
            seen.update(carrying)
    return False


def _carries(graph: Graph, value: int, units: Mask) -> bool:
    return any(gone(own, units).any() for own in graph.axes_of(value).values())
