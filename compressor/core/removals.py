"""Which units a rehearsal takes away, so that a wrong reading of a forward cannot pass by chance.

Knows units and the numbers that follow them; knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compressor.core.sizes import Mask, Number
from compressor.core.units import Units

__all__ = ["Rival", "can_refute", "removals"]

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class Rival:
    """A bound that follows what is before it might as well be fixed, or a share of the length.

    A removal refutes that if it makes the bound another number than the rival reading does.
    """

    bound: Number
    length: Number
    fixed: bool

    def refuted(self, removed: Mask) -> bool:
        """Whether the removal tells the two readings apart."""
        padded = np.append(removed, False)
        share = self.bound.old() * self.length.new(padded) // self.length.old()
        return self.bound.new(padded) != (self.bound.old() if self.fixed else share)


def removals(units: Units, rivals: Sequence[Rival], *, thorough: bool = False) -> Iterator[Mask]:
    """Removals [n_units] that refute every rival that some removal can refute, the plainest two first.

    `thorough` also leaves groups whole in turn, whatever the rivals are.
    """
    yield _some_units(units, early=True)
    yield _some_units(units, early=False)
    if thorough:
        yield _half(units)
    rivals = list(rivals)
    # Narrow groups can only lose the same number: leave some whole, in turn, so that a bound
    # between two of them is not right by chance (or by rounding).
    for stride, phase in ((1, 0), (1, 1), (2, 0), (2, 1)):
        removed = _some_units(units, early=False, stride=stride, phase=phase)
        left = [rival for rival in rivals if not rival.refuted(removed)]
        if thorough or len(left) < len(rivals):
            yield removed
        rivals = left
    while rivals:
        first, *rivals = rivals
        single = next((r for r in _single_ranks(units, first) if first.refuted(r)), None)
        if single is not None:
            yield single
            rivals = [rival for rival in rivals if not rival.refuted(single)]


def can_refute(units: Units, rival: Rival) -> bool:
    """Whether some removal tells the rival from what it rivals."""
    return any(rival.refuted(removed) for removed in _single_ranks(units, rival))


def _single_ranks(units: Units, rival: Rival) -> Iterator[Mask]:
    """Removals of one rank each that holds a channel before the bound or behind it.

    The other cells of its group lose the same rank, or one that is neither before nor behind.
    """
    near = np.unique(rival.length.units[rival.length.units >= 0])
    for group in units.groups:
        for cell in group.cells if group.size > 1 else ():
            for rank in np.flatnonzero(np.isin(cell, near)).tolist():
                same = [other[min(rank, len(other) - 1)] for other in group.cells]
                far = [next(iter(np.setdiff1d(other, near)), other[0]) for other in group.cells]
                away = [cell[rank] if other is cell else f for other, f in zip(group.cells, far, strict=True)]
                for units_gone in (same, away) if len(group.cells) > 1 else (same,):
                    removed = np.zeros(units.count, dtype=bool)
                    removed[units_gone] = True
                    yield removed


def _half(units: Units) -> Mask:
    """Half of every group: sizes that are a power of two apart meet there, and a branch may compare them."""
    removed = np.zeros(units.count, dtype=bool)
    for group in units.groups:
        for cell in group.cells:
            removed[cell[1 : 2 * (group.size // 2) : 2]] = True
    return removed


def _some_units(units: Units, *, early: bool, stride: int = 0, phase: int = 0) -> Mask:
    """A third to two thirds of every group's ranks, a different share from group to group.

    They are spread so that every run of ranks loses some, the earlier ones more (or fewer): whatever
    number a forward holds, it changes, and numbers that were equal mostly become different. With a
    `stride` every second run of that many groups stays whole, `phase` says which.
    """
    removed = np.zeros(units.count, dtype=bool)
    for position, group in enumerate(units.groups):
        whole = stride > 0 and position // stride % 2 != phase
        if group.size > 1 and not whole:
            share = (0.35 if early else 0.25) + 0.3 * (position * _GOLDEN % 1)
            ranks = np.arange(group.size) if early else np.arange(group.size)[::-1]
            order = np.argsort(ranks * _GOLDEN % 1 + 0.5 * ranks / group.size)
            # Two stay where they can: torch takes other ways for axes of length one.
            least = 2 if group.size > 2 else 1
            gone = order[: min(max(1, round(share * group.size)), group.size - least)]
            for cell in group.cells:
                removed[cell[gone]] = True
    return removed
