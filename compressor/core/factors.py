"""Axes that fall into factors: heads times dims, key-value groups times members, groups times channels.

A pass of labels over a tape shows where an axis is split (see `labels.Split`). Here that is traced
back to the axes that the labels were given to, which get one label for each index of each factor in
the next pass. Passes repeat until nothing is split that was whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from compressor.core.labels import NEUTRAL, Ids, LabelSpace, Origin, Split

__all__ = ["Factors"]

# A view splits into a few axes, each of which may be split once more from either side.
_MOST_PASSES = 6


@dataclass(slots=True)
class Factors:
    """What is known so far: for each axis the index of every position in every factor of it.

    `unsplittable` holds the operators (tape, op) at which an axis cannot be split.
    """

    by_origin: dict[Origin, tuple[Ids, ...]] = field(default_factory=dict)
    unsplittable: set[tuple[int, int]] = field(default_factory=set)
    asked: Counter[tuple[int, int]] = field(default_factory=Counter)

    def refine(self, space: LabelSpace, splits: Sequence[tuple[int, Split]]) -> None:
        """Split the axes that `splits` (of tape, split) ask for; what fails becomes unsplittable."""
        if self._restless(splits):
            return
        classes = space.solve()
        passing = np.zeros(space.count, dtype=bool)
        for ids in space.provisional:
            passing[classes[ids]] = True
        tables = [_Table.of(classes[split.ids], split.parts) for _, split in splits]
        used = [False] * len(splits)
        table_of = np.full(space.count, -1, dtype=np.int64)
        for number, table in enumerate(tables):
            # Of two that split the same labels one comes first, the other asks again.
            if table is not None and (table_of[table.classes] < 0).all():
                table_of[table.classes] = number
        waiting = [
            # Labels of this pass only are others in the next.
            passing[classes[split.ids]].any()
            or (table is not None and not (table_of[table.classes] == number).any())
            for number, (table, (_, split)) in enumerate(zip(tables, splits, strict=True))
        ]
        for origin, position, start, count in sorted(space.origins, key=lambda o: -o[1]):
            owners = table_of[classes[start : start + count]]
            if (owners >= 0).any():
                columns = _columns(classes[start : start + count], owners, tables)
                for number in np.unique(owners[owners >= 0]).tolist():
                    used[number] = True
                self._replace(origin, position, count, columns)
        for done, wait, (tape, split) in zip(used, waiting, splits, strict=True):
            if not done and not wait:
                self.unsplittable.add((tape, split.op))

    def _restless(self, splits: Sequence[tuple[int, Split]]) -> bool:
        """Whether an operator asks pass after pass; then it cannot be split, and all starts anew.

        Two axes joined and viewed as [2, n] are such a case: each factor found is in two parts again.
        """
        places = {(tape, split.op) for tape, split in splits}
        self.asked.update(places)
        restless = {place for place in places if self.asked[place] > _MOST_PASSES}
        if restless:
            self.unsplittable.update(restless)
            self.by_origin.clear()
            self.asked.clear()
        return bool(restless)

    def _replace(self, origin: Origin, position: int, count: int, columns: list[Ids]) -> None:
        known = self.by_origin.get(origin, (np.arange(count),))
        old = known[position]
        new = [np.where(old >= 0, column[old], NEUTRAL) for column in columns]
        self.by_origin[origin] = (*known[:position], *new, *known[position + 1 :])


@dataclass(frozen=True, eq=False)
class _Table:
    """For each class [n], ascending, its index in each factor [n, factors]."""

    classes: Ids
    parts: Ids

    @classmethod
    def of(cls, roots: Ids, parts: tuple[Ids, ...]) -> _Table | None:
        """The table, or None where one class would sit at two places, or several at one."""
        classes, first, inverse = np.unique(roots, return_index=True, return_inverse=True)
        stacked = np.stack(parts, axis=1)
        if not np.array_equal(stacked[first][inverse.ravel()], stacked):
            return None
        if len(np.unique(stacked[first], axis=0)) < len(classes):
            return None
        return cls(classes, stacked[first])


def _columns(roots: Ids, owners: Ids, tables: list[_Table | None]) -> list[Ids]:
    """The factors of labels with these classes: one column [n] for each, NEUTRAL where it has no say."""
    found = [table for table in tables if table is not None]
    width = max((table.parts.shape[1] for table in found), default=1)
    columns = np.full((width, len(roots)), NEUTRAL, dtype=np.int64)
    offsets = [0] * width
    for number in np.unique(owners).tolist():
        here = np.flatnonzero(owners == number)
        table = tables[number] if number >= 0 else None
        if table is None:
            # Labels that nobody splits stay what they are.
            parts = np.unique(roots[here], return_inverse=True)[1].reshape(-1, 1)
        else:
            parts = table.parts[np.searchsorted(table.classes, roots[here])]
        for factor in range(parts.shape[1]):
            columns[factor, here] = offsets[factor] + parts[:, factor]
            offsets[factor] += int(parts[:, factor].max()) + 1
    return [_consecutive(column) for column in columns if (column >= 0).any()]


def _consecutive(column: Ids) -> Ids:
    speaking = column >= 0
    result = column.copy()
    result[speaking] = np.unique(column[speaking], return_inverse=True)[1].ravel()
    return result
