"""From stated facts to units: connected labels become units, units become groups a budget can shrink.

Knows the label space; knows nothing of operators. Everything is a handful of NumPy passes, linear in
the number of channels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.core.channels import any_free, free
from compressor.core.graph import PINNED, Axis, Group, UnitArray
from compressor.core.labels import Ids, LabelSpace
from compressor.core.plan import Role

__all__ = ["Units", "find_units"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Units:
    """`of_label[label]` is a unit or PINNED; OPAQUE and NEUTRAL (-1, -2) read its last entries, PINNED."""

    count: int
    of_label: UnitArray
    axes: tuple[Axis, ...]
    groups: tuple[Group, ...]
    reasons: Mapping[tuple[str, int], tuple[str, ...]]

    def of(self, ids: Ids) -> UnitArray:
        """The units behind an array of labels."""
        return self.of_label[ids]


def find_units(space: LabelSpace) -> Units:
    """Solve the label space."""
    classes = space.solve()
    pinned, why = _pins(space, classes)
    components = _pin_uneven(space, classes, pinned, why)
    removable = np.flatnonzero(~pinned[:-1])
    number = np.full(space.count, PINNED, dtype=np.int64)
    number[removable] = np.arange(len(removable))
    of_label = np.append(number[classes], [PINNED, PINNED])
    axes = _axes(space, of_label)
    tied = [tuple(number[cell] for cell in component.cells) for component in components]
    groups = _groups(space, of_label, axes, tied, len(removable))
    return Units(len(removable), of_label, axes, groups, _reasons(space, classes, axes, why))


def _pins(space: LabelSpace, classes: Ids) -> tuple[Flags, dict[int, str]]:
    """Which classes [count + 1] are pinned, and why; the last entry stands for OPAQUE."""
    why: dict[int, str] = {}
    pinned = np.zeros(space.count + 1, dtype=bool)
    pinned[-1] = True
    for ids, reason in space.pins:
        _pin(classes[ids], reason, pinned, why)
    on_parameter = np.zeros(space.count + 1, dtype=bool)
    labels = np.concatenate([axis.ids.ravel() for axis in space.axes] or [classes[:0]])
    on_parameter[classes[labels[labels >= 0]]] = True
    pinned |= ~on_parameter
    return pinned, why


def _pin(roots: Ids, reason: str, pinned: Flags, why: dict[int, str]) -> bool:
    """Pin classes; the first reason given for each is kept. Whether any was new."""
    fresh = np.unique(roots[~pinned[roots]])
    pinned[fresh] = True
    for root in fresh.tolist():
        why[root] = reason
    return bool(fresh.size)


def _axes(space: LabelSpace, of_label: UnitArray) -> tuple[Axis, ...]:
    read = np.zeros(space.count + 2, dtype=bool)  # so that OPAQUE and NEUTRAL read False
    for ids in space.readers:
        read[ids] = True
    axes = []
    known: dict[tuple[tuple[int, ...], bytes], UnitArray] = {}
    for axis in space.axes:
        units = _factors(of_label[axis.ids])
        # Most axes hold what others hold (a norm's four vectors, the layer behind) and share it, so that
        # whoever asks something of the units of every axis need not ask again.
        units = known.setdefault((units.shape, units.tobytes()), units)
        role: Role = "reader" if np.count_nonzero(read[axis.ids]) else "writer"
        axes.append(Axis(axis.tensor, axis.axis, units, role, axis.blocks))
    return tuple(axes)


def _factors(units: UnitArray) -> UnitArray:
    """Units [factors, size] without factors that nothing can take away; [size] where one is left."""
    rows = [row for row in units if any_free(row)] if len(units) > 1 else []
    rows = rows or [units[0]]
    return rows[0] if len(rows) == 1 else np.stack(rows)


def _reasons(
    space: LabelSpace, classes: Ids, axes: tuple[Axis, ...], why: Mapping[int, str]
) -> dict[tuple[str, int], tuple[str, ...]]:
    """Why channels of each axis are pinned: every distinct reason once, in order."""
    reasons: dict[tuple[str, int], tuple[str, ...]] = {}
    whole = {id(units) for units, _ in _shared(axes) if free(units).all()}
    for known, axis in zip(space.axes, axes, strict=True):
        if len(known.ids) == 1 and id(axis.units) in whole:
            continue
        held = classes[known.ids[:, ~free(axis.units)]]
        if len(known.ids) > 1:
            # Heads that are fixed are worth a word also where their dims can go, and the other way round.
            held = np.concatenate([held.ravel(), *(classes[row] for row in known.ids)])
        held = np.unique(held[held >= 0])
        texts = dict.fromkeys(why[root] for root in held.tolist() if root in why)
        if texts:
            reasons[axis.tensor, axis.axis] = tuple(texts)
    return reasons


# -- equal counts --------------------------------------------------------------------------------


def _pin_uneven(space: LabelSpace, classes: Ids, pinned: Flags, why: dict[int, str]) -> list[_Component]:
    """Pin what no removal can keep even, until nothing changes; the components that remain."""
    roots = [classes[rows] for rows, _ in space.equals]
    while True:
        changed = False
        found: list[_Patterns] = []
        for (_, reason), root in zip(space.equals, roots, strict=True):
            patterns = _patterns(root, pinned)
            found.append(patterns)
            if patterns.even():
                continue
            single, uneven = patterns.once(), patterns.several()
            if uneven.size:
                changed |= _pin(uneven, f"{reason}: it sits unevenly in them", pinned, why)
            else:
                changed |= _pin(single, f"{reason}: one of them cannot shrink as the others do", pinned, why)
        if changed:
            continue
        components = _components(found, len(pinned))
        for component in components:
            if not component.even:
                crossing = np.concatenate(component.cells)
                changed |= _pin(crossing, "several rules of equal size cross here", pinned, why)
        changed = changed or _pin_last(space, classes, components, pinned, why)
        if not changed:
            return components


def _pin_last(
    space: LabelSpace,
    classes: Ids,
    components: list[_Component],
    pinned: Flags,
    why: dict[int, str],
) -> bool:
    """Pin one class of each axis that equal losses of a component's cells could empty.

    Cells may hold channels of several axes (a grouped convolution over a concatenation), so one rank
    that stays in each cell need not stay on each axis.
    """
    cell_of = np.full(len(pinned), -1, dtype=np.int64)
    most: list[int] = []
    for component in components:
        size = min(map(len, component.cells))
        for cell in component.cells:
            cell_of[cell] = len(most)
            most.append(size - 1)
    changed = False
    factors = [(axis.tensor, row) for axis in space.axes if components for row in axis.ids]
    for tensor, ids in factors:
        roots = np.unique(classes[ids[ids >= 0]])
        cells = cell_of[roots]
        if pinned[roots].any() or (cells < 0).any():
            continue
        counts = np.bincount(cells, minlength=len(most))
        if (counts <= most).all():
            changed |= _pin(roots[:1], f"one channel of {tensor} has to stay", pinned, why)
    return changed


@dataclass(frozen=True, eq=False)
class _Patterns:
    """How often free classes sit in each row of a rule, those left out that sit in all equally often.

    `table` [patterns, rows] holds the distinct ones, `which` [classes] each class's.
    """

    classes: Ids
    which: Ids
    table: Ids

    def even(self) -> bool:
        """Whether as many classes of each pattern, or else a share of all, sit in every row equally often.

        Rotary pairs sit twice in their row, other dims once: with each pair go two of those.
        """
        counts = np.bincount(self.which, minlength=len(self.table))
        shared = int(np.gcd.reduce(counts))
        totals = [self.table.sum(0)]
        if shared > 1:
            totals.append(counts // shared @ self.table)
        return any(bool((total == total[:1]).all()) for total in totals)

    def once(self) -> Ids:
        """The classes that sit in one row only, once."""
        return np.asarray(self.classes[(self.table.sum(1) == 1)[self.which]])

    def several(self) -> Ids:
        """The others."""
        return np.asarray(self.classes[(self.table.sum(1) != 1)[self.which]])


def _patterns(rows: Ids, pinned: Flags) -> _Patterns:
    free = np.unique(rows[~pinned[rows]])
    place = np.searchsorted(free, rows) + np.arange(len(rows))[:, None] * len(free)
    counts = np.bincount(place[~pinned[rows]], minlength=len(rows) * len(free)).reshape(len(rows), -1)
    uneven = (counts != counts[:1]).any(0)
    if not uneven.any():
        return _Patterns(free[:0], free[:0], np.zeros((0, len(rows)), dtype=np.int64))
    table, which = _distinct(counts[:, uneven].T)
    return _Patterns(free[uneven], which, table)


def _distinct(rows: Ids) -> tuple[Ids, Ids]:
    """The distinct rows [m, k] of whole numbers, ascending, and which of them each row [n, k] is [n].

    `np.unique(rows, axis=0)` compares row with row, number by number. Here as many numbers as fit are
    packed into one, and whole columns are sorted.
    """
    least = int(rows.min())
    base = int(rows.max()) - least + 1
    width = max(1, int(62 / math.log2(max(base, 2))))
    packed = []
    for start in range(0, rows.shape[1], width):
        part = rows[:, start : start + width] - least
        packed.append(part @ base ** np.arange(part.shape[1] - 1, -1, -1, dtype=np.int64))
    order = np.lexsort(packed[::-1])
    ordered = np.stack(packed)[:, order]
    starts = np.append(True, (ordered[:, 1:] != ordered[:, :-1]).any(0))
    which = np.empty(len(rows), dtype=np.int64)
    which[order] = np.cumsum(starts) - 1
    return rows[order[starts]], which


@dataclass(frozen=True, eq=False)
class _Component:
    """Classes tied by rules of equal size, sorted into cells: one for each combination of patterns."""

    cells: tuple[Ids, ...]
    even: bool


def _components(found: list[_Patterns], count: int) -> list[_Component]:
    """Rules of equal size that share some of the `count` classes form one component."""
    places: list[_Patterns] = []
    seen: set[bytes] = set()
    for patterns in found:
        key = patterns.classes.tobytes() + patterns.which.tobytes() + patterns.table.tobytes()
        if patterns.classes.size and key not in seen:
            seen.add(key)
            places.append(patterns)
    return [_component([places[i] for i in chosen]) for chosen in _sharing(places, count)]


def _sharing(places: list[_Patterns], count: int) -> list[list[int]]:
    """Rules sorted into sets that share no class."""
    owner = np.full(count, -1, dtype=np.int64)
    sets: list[list[int]] = []
    for number, placed in enumerate(places):
        met = np.unique(owner[placed.classes])
        together = [number, *(rule for old in met[met >= 0].tolist() for rule in sets[old])]
        for old in met[met >= 0].tolist():
            sets[old] = []
        sets.append(together)
        for rule in together:
            owner[places[rule].classes] = len(sets) - 1
    return [sorted(chosen) for chosen in sets if chosen]


def _component(places: list[_Patterns]) -> _Component:
    """Cells of the classes that the rules speak of: one for each combination of patterns."""
    members = np.unique(np.concatenate([placed.classes for placed in places]))
    rows = np.full((len(members), len(places)), -1, dtype=np.int64)
    for column, placed in enumerate(places):
        rows[np.searchsorted(members, placed.classes), column] = placed.which
    kinds, which = _distinct(rows)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which))[:-1]
    cells = np.split(members[order], ends)
    if not _even(places, kinds):
        # Runs of one size lie crosswise (4 groups of 6 over 6 groups of 4): smaller cells may fit both.
        width = math.gcd(*map(len, cells))
        pieces = [len(cell) // width for cell in cells]
        cells = [piece for cell, n in zip(cells, pieces, strict=True) for piece in np.split(cell, n)]
        kinds = np.repeat(kinds, pieces, axis=0)
    return _Component(tuple(cells), _even(places, kinds))


def _even(places: list[_Patterns], kinds: Ids) -> bool:
    """Whether every row of every rule holds equally many cells.

    `kinds` [cells, rules] says which pattern of each rule a cell's classes have.
    """
    for placed, column in zip(places, kinds.T, strict=True):
        counts = placed.table[column[column >= 0]].sum(0)
        if (counts != counts[0]).any():
            return False
    return True


# -- groups --------------------------------------------------------------------------------------


def _groups(
    space: LabelSpace,
    of_label: UnitArray,
    axes: tuple[Axis, ...],
    tied: list[tuple[UnitArray, ...]],
    count: int,
) -> tuple[Group, ...]:
    """Units tied by equal counts form a group of several cells; else equal signatures form a group."""
    changing = np.zeros(count + 1, dtype=bool)
    for ids in space.statistics:
        changing[of_label[ids]] = True
    changing[-1] = False
    signature = _signatures(axes, count)
    homes = _homes(axes, count)
    taken = np.zeros(count, dtype=bool)
    cells_of: list[list[UnitArray]] = [list(cells) for cells in tied]
    for cells in cells_of:
        taken[np.concatenate(cells)] = True
    loose = np.flatnonzero(~taken)
    if loose.size:
        _, which = np.unique(signature[loose], return_inverse=True)
        order = np.argsort(which, kind="stable")
        for cell in np.split(loose[order], np.flatnonzero(np.diff(which[order])) + 1):
            cells_of.append([cell])
    cells_of.sort(key=lambda cells: int(homes[cells[0][0]]) * count + int(cells[0].min()))
    return tuple(_group(axes, cells, homes, changing) for cells in cells_of)


def _signatures(axes: tuple[Axis, ...], count: int) -> npt.NDArray[np.uint64]:
    """A number for each unit that two units share when they sit in the same axes equally often."""
    generator = np.random.default_rng(0)
    factors = max((len(axis.units) for axis in axes if axis.units.ndim > 1), default=1)
    weights = generator.integers(1, 2**63, size=(len(axes), factors), dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for units, positions in _shared(axes):
        for row, weight in zip(np.atleast_2d(units), weights[positions].sum(0), strict=False):
            np.add.at(total, row[row >= 0], weight)
    return total


def _shared(axes: tuple[Axis, ...]) -> list[tuple[UnitArray, list[int]]]:
    """Each array of units once, with the positions of the axes that hold it."""
    found: dict[int, tuple[UnitArray, list[int]]] = {}
    for position, axis in enumerate(axes):
        found.setdefault(id(axis.units), (axis.units, []))[1].append(position)
    return list(found.values())


def _homes(axes: tuple[Axis, ...], count: int) -> UnitArray:
    """For each unit the axis it is named after: the first that a weight writes, else a vector, else any."""
    tensors = Counter(axis.tensor for axis in axes)
    rank = [(axis.role == "reader", tensors[axis.tensor] == 1, i) for i, axis in enumerate(axes)]
    homes = np.zeros(count, dtype=np.int64)
    for *_, position in sorted((min(rank[i] for i in held) for _, held in _shared(axes)), reverse=True):
        units = axes[position].units
        homes[units[units >= 0]] = position
    return homes


def _group(axes: tuple[Axis, ...], cells: list[UnitArray], homes: UnitArray, changing: Flags) -> Group:
    home = axes[int(homes[cells[0][0]])]
    first = np.array([cell[0] for cell in cells])
    channels = int(np.atleast_2d(np.isin(home.units, first)).any(0).sum())
    statistics = bool(any(changing[cell].any() for cell in cells))
    return Group(home.tensor, tuple(cells), channels, statistics)
