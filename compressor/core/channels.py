"""Units of the positions along an axis: one for each, or one for each factor.

`units` [size] holds a unit (or PINNED) for each position. `units` [factors, size] holds several: heads
and dims of heads, say. A position goes when any of its units goes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["Mask", "Removal", "UnitArray", "any_free", "free", "gone", "grids", "sites"]

UnitArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def gone(units: UnitArray, padded: Mask) -> Mask:
    """Which positions [size] go when the units flagged in `padded` [n_units + 1] do.

    >>> gone(np.array([[0, 0, 1, 1], [2, 3, 2, 3]]), np.array([True, False, False, True, False]))
    array([ True,  True, False,  True])
    """
    flags = padded[units]
    return np.asarray(flags if flags.ndim == 1 else flags.any(0))


class Removal:
    """What stays of arrays of units once those flagged in `removed` [n_units] are gone.

    Axes share arrays, so an answer is kept with the array that it was given for.

    >>> Removal(np.array([True, False])).kept(np.array([0, 1, -1, 0]))
    array([1, 2])
    """

    def __init__(self, removed: Mask) -> None:
        self.padded = np.append(removed, False)  # so that PINNED (-1) reads False
        self._kept: dict[int, tuple[UnitArray, npt.NDArray[np.int64]]] = {}

    def kept(self, units: UnitArray) -> npt.NDArray[np.int64]:
        """The positions that stay."""
        known = self._kept.get(id(units))
        if known is None:
            known = self._kept[id(units)] = units, np.flatnonzero(~gone(units, self.padded))
        return known[1]

    def count(self, units: UnitArray) -> int:
        """How many positions stay."""
        return len(self.kept(units))


def free(units: UnitArray) -> Mask:
    """Which positions [size] some unit can take away."""
    flags = units >= 0
    return np.asarray(flags if flags.ndim == 1 else flags.any(0))


def any_free(units: UnitArray) -> bool:
    """Whether some unit can take any of the positions away."""
    return bool(np.count_nonzero(units >= 0))  # in a quarter of the time that `any` takes


def sites(units: UnitArray) -> tuple[npt.NDArray[np.int64], UnitArray]:
    """Every pair of a position and a unit of it, as two arrays [n]; pinned ones are left out."""
    positions = np.broadcast_to(np.arange(units.shape[-1]), units.shape)
    return positions[units >= 0], units[units >= 0]


def grids(units: UnitArray) -> Iterator[tuple[int, tuple[UnitArray, ...]]]:
    """Sums of products that count what stays: Σ times · Π kept(dimension).

    >>> list(grids(np.array([[0, 0, 1, 1], [2, 3, 2, 3]])))
    [(1, (array([0, 1]), array([2, 3])))]
    """
    if units.ndim == 1:
        yield 1, (units,)
        return
    rows, times = np.unique(units.T, axis=0, return_counts=True)
    which = _together(rows)
    for piece in range(int(which.max(initial=-1)) + 1):
        here = rows[which == piece]
        dimensions = tuple(np.unique(column) for column in here.T)
        counts = times[which == piece]
        whole = np.prod([len(d) for d in dimensions]) == len(here) and (counts == counts[0]).all()
        if whole:
            yield int(counts[0]), tuple(d for d in dimensions if (d >= 0).any()) or (np.array([-1]),)
        else:
            for row, count in zip(here, counts.tolist(), strict=True):
                yield count, tuple(row[i : i + 1] for i in range(len(row)) if row[i] >= 0)


def _together(rows: UnitArray) -> npt.NDArray[np.int64]:
    """For each row [n, factors] the number of its piece: rows that share a free unit are of one."""
    owner = np.arange(len(rows))
    while True:
        before = owner.copy()
        for column in rows.T:
            values, index = np.unique(column, return_inverse=True)
            lowest = np.full(len(values), len(rows))
            np.minimum.at(lowest, index.ravel(), owner)
            owner = np.where(column >= 0, lowest[index.ravel()], owner)
        if np.array_equal(owner, before):
            return np.unique(owner, return_inverse=True)[1].ravel()
