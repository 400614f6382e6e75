"""Which widths `round_to` speaks of: of a tensor, or of every head where heads are cut, too."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from compressor.budget.factors import factors_of
from compressor.core.graph import PINNED, Axis, Graph, UnitArray

__all__ = ["Step", "rounding"]

Owners = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """A group that keeps k ranks keeps k * `channels` + `beside` channels of a width.

    With `every` the width is one of many alike: the dims of every head. 0 channels: nothing to round.
    """

    channels: int
    beside: int = 0
    every: bool = False

    def words(self, size: int) -> str:
        """The width before anything is removed."""
        return f"{'every ' if self.every else ''}{size * self.channels + self.beside} channels"


def rounding(graph: Graph, ignored: Collection[int]) -> tuple[Step, ...]:
    """For each group the width that is to be a multiple.

    Of channels of several factors the innermost is rounded, the dims of a head. Heads are not: any
    number of them times a multiple is one. Of every other group the width is that of the tensor it
    is named after, pinned and ignored channels included. Where several groups make up a width, each
    is rounded on its own, so the sum is a multiple, too; what stays in any case counts once, with
    the largest of them. Where one rank is several rows of that tensor and one column of a reader (the
    four gates of an LSTM, both halves of a gated MLP), the narrower width is the one that is rounded.
    """
    outer = {group for product in graph.crossed for group in product[:-1]}
    inner = factors_of(graph) - outer
    steps = [Step(0) if p in outer else Step(group.channels) for p, group in enumerate(graph.groups)]
    seen: set[int] = set()
    read: dict[int, int] = {}  # the fewest channels of a rank along an axis that is read
    padded = np.append(graph.group_of, PINNED)
    homes = {group.name for group in graph.groups}
    for axis in _telling(graph, homes):
        owners = padded[axis.units]
        if axis.units.ndim > 1:
            for run in _runs(axis.units):
                _of_heads(steps, axis.units[-1, run], owners[-1, run], inner, ignored, seen)
        elif axis.role == "writer":
            homed = {g for g in np.unique(owners).tolist() if g >= 0 and graph.groups[g].name == axis.tensor}
            largest = _largest(owners, homed - inner - outer - set(ignored))
            if largest is not None and largest not in seen:
                seen.add(largest)
                steps[largest] = Step(graph.groups[largest].channels, _staying(owners, ignored))
        else:
            for group, count in zip(
                *(a.tolist() for a in np.unique(owners, return_counts=True)), strict=True
            ):
                if group >= 0 and count % graph.groups[group].size == 0:  # all of it is read, not a slice
                    each = count // graph.groups[group].size
                    read[group] = min(each, read.get(group, each))
    return tuple(_as_read(step, read.get(p, step.channels)) for p, step in enumerate(steps))


def _telling(graph: Graph, homes: Collection[str]) -> Iterator[Axis]:
    """The axes but for those that say nothing new: what groups are not named after, or read once more."""
    read: set[int] = set()
    for axis in graph.axes:
        if axis.units.ndim == 1 and axis.role == "reader":
            if id(axis.units) in read:  # axes share arrays of units
                continue
            read.add(id(axis.units))
        elif axis.units.ndim == 1 and axis.tensor not in homes:
            continue
        yield axis


def _as_read(step: Step, channels: int) -> Step:
    return step if step.every or step.beside or channels >= step.channels else Step(channels)


def _runs(units: UnitArray) -> list[slice]:
    """The stretches of an axis [factors, size] along which only the last factor changes."""
    starts = np.flatnonzero((units[:-1, 1:] != units[:-1, :-1]).any(0)) + 1
    ends = [0, *starts.tolist(), units.shape[1]]
    return [slice(start, end) for start, end in pairwise(ends)]


def _of_heads(
    steps: list[Step],
    units: UnitArray,
    owners: Owners,
    inner: Collection[int],
    ignored: Collection[int],
    seen: set[int],
) -> None:
    """Set the steps of the groups that meet within one head, of those not yet seen."""
    here = {g for g in np.unique(owners).tolist() if g in inner and g not in ignored} - seen
    largest = _largest(owners, here)
    for group in here:
        # Queries and keys side by side in one head hold a unit each: the least is a width of its own.
        times = int(np.unique(units[owners == group], return_counts=True)[1].min())
        steps[group] = Step(times, _staying(owners, ignored) if group == largest else 0, every=True)
    seen |= here


def _largest(owners: Owners, groups: Collection[int]) -> int | None:
    return max(sorted(groups), key=lambda g: int((owners == g).sum()), default=None)


def _staying(owners: Owners, ignored: Collection[int]) -> int:
    return int(((owners == PINNED) | np.isin(owners, list(ignored))).sum())
