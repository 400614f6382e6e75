"""From stated facts to units: connected labels become units, units become groups a budget can shrink.

Knows the label space; knows nothing of operators. Everything is a handful of NumPy passes, linear in
the number of channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.core.graph import PINNED, Axis, Group, UnitArray
from compressor.core.labels import Ids, LabelSpace

__all__ = ["Units", "find_units"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Units:
    """`of_label[label]` is a unit or PINNED; one extra entry at the end makes OPAQUE (-1) read PINNED."""

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
    why: dict[int, str] = {}
    pinned = np.zeros(space.count + 1, dtype=bool)
    pinned[-1] = True
    for ids, reason in space.pins:
        _pin(classes[ids], reason, pinned, why)
    on_parameter = np.zeros(space.count + 1, dtype=bool)
    for axis in space.axes:
        on_parameter[classes[axis.start : axis.start + axis.size]] = True
    pinned |= ~on_parameter
    for a, b in space.crossings:
        if not np.array_equal(classes[a], classes[b]) and not pinned[classes[a]].all():
            _pin(classes[b[b >= 0]], "flattened together with another channel axis", pinned, why)
    _pin_uneven(space, classes, pinned, why)
    removable = np.flatnonzero(~pinned[:-1])
    number = np.full(space.count, PINNED, dtype=np.int64)
    number[removable] = np.arange(len(removable))
    of_label = np.append(number[classes], PINNED)
    axes = _axes(space, of_label)
    groups = _groups(space, of_label, axes, len(removable))
    return Units(len(removable), of_label, axes, groups, _reasons(space, classes, axes, why))


def _pin(roots: Ids, reason: str, pinned: Flags, why: dict[int, str]) -> bool:
    """Pin classes; the first reason given for each is kept. Whether any was new."""
    fresh = np.unique(roots[~pinned[roots]])
    pinned[fresh] = True
    for root in fresh.tolist():
        why[root] = reason
    return bool(fresh.size)


def _axes(space: LabelSpace, of_label: UnitArray) -> tuple[Axis, ...]:
    read = np.zeros(space.count, dtype=bool)
    for ids in space.readers:
        read[ids] = True
    axes = []
    for axis in space.axes:
        labels = slice(axis.start, axis.start + axis.size)
        role = "reader" if read[labels].any() else "writer"
        axes.append(Axis(axis.tensor, axis.axis, of_label[labels], role, axis.blocks))  # type: ignore[arg-type]
    return tuple(axes)


def _reasons(
    space: LabelSpace, classes: Ids, axes: tuple[Axis, ...], why: Mapping[int, str]
) -> dict[tuple[str, int], tuple[str, ...]]:
    """Why channels of each axis are pinned: every distinct reason once, in order."""
    reasons: dict[tuple[str, int], tuple[str, ...]] = {}
    for known, axis in zip(space.axes, axes, strict=True):
        held = classes[known.start : known.start + known.size][axis.units < 0]
        texts = dict.fromkeys(why[root] for root in np.unique(held).tolist() if root in why)
        if texts:
            reasons[axis.tensor, axis.axis] = tuple(texts)
    return reasons


# -- equal counts --------------------------------------------------------------------------------


def _pin_uneven(space: LabelSpace, classes: Ids, pinned: Flags, why: dict[int, str]) -> None:
    """Pin what no removal can keep even, until nothing changes."""
    changed = bool(space.equals)
    roots = [classes[rows] for rows, _ in space.equals]
    while changed:
        changed = False
        for (_, reason), root in zip(space.equals, roots, strict=True):
            single, uneven = _members(root, pinned)
            if uneven.size:
                changed |= _pin(uneven, f"{reason}: it sits unevenly in them", pinned, why)
            elif not _balanced(root, single):
                changed |= _pin(single, f"{reason}: one of them cannot shrink as the others do", pinned, why)
        if not changed:
            for component in _components(space, classes, pinned):
                if not component.even:
                    changed |= _pin(np.concatenate(component.cells), "several rules of equal size cross here", pinned, why)


def _members(rows: Ids, pinned: Flags) -> tuple[Ids, Ids]:
    """Free classes that sit in one row only, and those that sit in several rows unequally often."""
    free = np.unique(rows[~pinned[rows]])
    if not free.size:
        return free, free
    place = np.searchsorted(free, rows) + np.arange(len(rows))[:, None] * len(free)
    counts = np.bincount(place[~pinned[rows]], minlength=len(rows) * len(free)).reshape(len(rows), -1)
    everywhere = (counts == counts[:1]).all(0)
    once = ((counts > 0).sum(0) == 1) & (counts.max(0) == 1)
    return free[once & ~everywhere], free[~once & ~everywhere]


def _balanced(rows: Ids, single: Ids) -> bool:
    """Whether every row holds at least one of the classes that sit in one row only (or none does)."""
    if not single.size:
        return True
    return all(bool(np.isin(row, single).any()) for row in rows)


@dataclass(frozen=True, eq=False)
class _Component:
    """Classes tied by rules of equal size, sorted into cells: one for each combination of rows."""

    cells: tuple[Ids, ...]
    even: bool


def _components(space: LabelSpace, classes: Ids, pinned: Flags) -> list[_Component]:
    """Rules of equal size that share classes form one component."""
    rules: list[Ids] = []
    seen: set[bytes] = set()
    for rows, _ in space.equals:
        row_of = _row_of(classes[rows], pinned)
        if row_of is not None and row_of.tobytes() not in seen:
            seen.add(row_of.tobytes())
            rules.append(row_of)
    return [_component(np.stack([rules[i] for i in chosen])) for chosen in _sharing(rules)]


def _row_of(rows: Ids, pinned: Flags) -> Ids | None:
    """For each class [n] the one row it sits in, -1 where it takes no part; None if none does."""
    single, _ = _members(rows, pinned)
    if not single.size:
        return None
    chosen = np.zeros(len(pinned), dtype=bool)
    chosen[single] = True
    places = chosen[rows]
    row_of = np.full(len(pinned), -1, dtype=np.int64)
    row_of[rows[places]] = np.nonzero(places)[0]
    return row_of


def _sharing(rules: list[Ids]) -> list[list[int]]:
    """Rules sorted into sets that share no class."""
    sets: list[tuple[list[int], Flags]] = []
    for number, row_of in enumerate(rules):
        members = row_of >= 0
        together = [number]
        apart = []
        for others, theirs in sets:
            if (members & theirs).any():
                together = others + together
                members = members | theirs
            else:
                apart.append((others, theirs))
        sets = [*apart, (together, members)]
    return [sorted(chosen) for chosen, _ in sets]


def _component(rows: Ids) -> _Component:
    """Cells of the classes that sit in any of `rows` [rules, n]: one for each combination of rows."""
    members = np.flatnonzero((rows >= 0).any(0))
    kinds, which = np.unique(rows[:, members].T, axis=0, return_inverse=True)
    cells = tuple(members[which.ravel() == kind] for kind in range(len(kinds)))
    even = True
    for rule, places in zip(rows, kinds.T, strict=True):
        counts = np.bincount(places[places >= 0], minlength=int(rule.max()) + 1)
        even &= len(set(counts.tolist())) == 1
    return _Component(cells, even)


# -- groups --------------------------------------------------------------------------------------


def _groups(
    space: LabelSpace, of_label: UnitArray, axes: tuple[Axis, ...], count: int
) -> tuple[Group, ...]:
    """Units tied by equal counts form a group of several cells; else equal signatures form a group."""
    changing = np.zeros(count + 1, dtype=bool)
    for ids in space.statistics:
        changing[of_label[ids]] = True
    changing[-1] = False
    signature = _signatures(axes, count)
    homes = _homes(axes, count)
    taken = np.zeros(count, dtype=bool)
    cells_of: list[list[UnitArray]] = []
    for component in _components(space, of_label, np.append(np.zeros(count, dtype=bool), True)):
        cells_of.append([cell.astype(np.int64) for cell in component.cells])
        for cell in component.cells:
            taken[cell] = True
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
    weights = generator.integers(1, 2**63, size=len(axes), dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for weight, axis in zip(weights, axes, strict=True):
        free = axis.units[axis.units >= 0]
        if free.size:
            total += np.bincount(free, minlength=count).astype(np.uint64) * weight
    return total


def _homes(axes: tuple[Axis, ...], count: int) -> UnitArray:
    """For each unit the axis it is named after: the first that a weight writes, else a vector, else any."""
    tensors = Counter(axis.tensor for axis in axes)
    rank = [(axis.role == "reader", tensors[axis.tensor] == 1, i) for i, axis in enumerate(axes)]
    homes = np.zeros(count, dtype=np.int64)
    for *_, position in sorted(rank, reverse=True):
        units = axes[position].units
        homes[units[units >= 0]] = position
    return homes


def _group(
    axes: tuple[Axis, ...], cells: list[UnitArray], homes: UnitArray, changing: Flags
) -> Group:
    home = axes[int(homes[cells[0][0]])]
    first = np.array([cell[0] for cell in cells])
    channels = int(np.isin(home.units, first).sum())
    statistics = bool(any(changing[cell].any() for cell in cells))
    return Group(home.tensor, tuple(cells), channels, statistics)
