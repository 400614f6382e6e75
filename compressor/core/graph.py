"""The captured model as everything above the core sees it: axes, units, groups, costs, reasons.

A `Graph` is made by `compressor.capture` and never changes. All its arrays are NumPy, and a unit is
an integer `0 … n_units - 1`; `PINNED` (-1) stands for a channel that cannot be removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from compressor.core.alone import alone
from compressor.core.channels import Mask, Removal, UnitArray, free, gone, sites
from compressor.core.plan import Cut, Patch, PatchValue, Plan, Role, Signature, Size, SizeValue
from compressor.core.tape import Tape
from compressor.errors import InputError, PlanError

__all__ = [
    "PINNED",
    "Activation",
    "Axis",
    "Graph",
    "Group",
    "Mask",
    "PatchRule",
    "Restriction",
    "SizeRule",
    "UnitArray",
    "Work",
    "require_graph",
]

PINNED = -1


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of one parameter or buffer; `units[i]` is the unit of channel `i`, or PINNED.

    An axis of several factors (heads times dims) has `units` [factors, size]: channel `i` goes when
    any of the units `units[:, i]` goes. With `blocks > 1` the axis is counted over all blocks of rows,
    see `Cut`.
    """

    tensor: str
    axis: int
    units: UnitArray
    role: Role
    blocks: int = 1

    @property
    def size(self) -> int:
        """How many channels the axis has (over all blocks)."""
        return int(self.units.shape[-1])

    @property
    def free(self) -> Mask:
        """Which channels [size] can be removed."""
        return free(self.units)

    def gone(self, removed: Mask) -> Mask:
        """Which channels [size] go when the `removed` [n_units] units do."""
        return gone(self.units, np.append(removed, False))

    def sites(self) -> tuple[npt.NDArray[np.int64], UnitArray]:
        """Every pair of a channel and a unit that takes it away, as two arrays [n]."""
        return sites(self.units)

    def __repr__(self) -> str:
        return (
            f"Axis({self.tensor} axis {self.axis}, {int(self.free.sum())} of {self.size} free, {self.role})"
        )


@dataclass(frozen=True, eq=False)
class Group:
    """Units of one home, interchangeable for a budget.

    `cells` are arrays of unit ids. Removing one *rank* from the group removes one unit of each cell:
    equal counts in every cell is what keeps grouped convolutions and even splits rectangular. Most
    groups have a single cell. `channels` is how many channels of the home axis go with one rank.
    """

    name: str
    cells: tuple[UnitArray, ...]
    channels: int
    statistics: bool

    @cached_property
    def size(self) -> int:
        """How many ranks the group has: the length of its shortest cell."""
        return min(len(cell) for cell in self.cells)

    def __repr__(self) -> str:
        cells = f" in {len(self.cells)} cells" if len(self.cells) > 1 else ""
        return f"Group({self.name}, {self.size} ranks{cells})"


@dataclass(frozen=True, eq=False)
class Work:
    """The multiply-accumulates of one operator: coefficient * Π(kept channels of each dim) / divisor."""

    op: int
    module: str
    operator: str
    coefficient: int
    dims: tuple[UnitArray, ...]
    divisor: int = 1


@dataclass(frozen=True, eq=False)
class Activation:
    """One tensor an operator computes: coefficient * Π(kept of each dim) elements of `itemsize` bytes."""

    op: int
    module: str
    operator: str
    coefficient: int
    dims: tuple[UnitArray, ...]
    itemsize: int


@dataclass(frozen=True, eq=False)
class SizeRule:
    """A module attribute that follows a cut: its new value is kept(units) // divisor.

    `item` is the position within a tuple-valued attribute, or None for a plain number.
    """

    module: str
    attribute: str
    item: int | None
    units: UnitArray
    divisor: int = 1


@dataclass(frozen=True, eq=False)
class PatchRule:
    """What a call of a forward holds, a number, and what it becomes when any of `units` go; see `Patch`.

    With `fixed` it becomes that, whatever goes (without `units`: also when nothing of it is known to).
    With `relative` it becomes as large a part of what is there as stays of the units. Else it is
    kept(units) // divisor; of several unit arrays the list of those, or the one number that all of them
    are. With `always` it is written down also where it is what was recorded: forward may compute
    something else from what was cut. With `picks` the old value is positions along the units, and the
    new one says where those of them are that stay.
    """

    module: str
    function: str
    call: int
    argument: str
    old: PatchValue
    units: tuple[UnitArray, ...]
    divisor: int = 1
    fixed: PatchValue = None
    relative: bool = False
    always: bool = False
    picks: bool = False

    def patch(self, padded: Mask) -> Patch | None:
        """The patch once the units flagged in `padded` [n_units + 1] are gone; None where none is needed."""
        away = [gone(units, padded) for units in self.units]
        if away and not self.always and not any(a.any() for a in away):
            return None
        kept = [int((~a).sum()) // self.divisor for a in away]
        new: PatchValue = self.fixed
        if self.picks:
            positions = np.array(self.old, dtype=np.int64)
            ranks = np.cumsum(~away[0]) - 1
            new = tuple(ranks[positions[~away[0][positions]]].tolist())
        elif new is None and self.relative:
            new = Fraction(kept[0], len(away[0]) // self.divisor)
        elif new is None:
            # One number for all pieces of a split stays one where they are of one size.
            alike = len(set(kept)) == 1 and kept[0] > 0 and isinstance(self.old, int)
            new = kept[0] if alike or len(kept) == 1 else tuple(kept)
        needless = self.fixed is None and not (self.always or self.picks) and new == self.old
        patch = Patch(self.module, self.function, self.call, self.argument, self.old, new)
        return None if needless else patch


@dataclass(frozen=True, eq=False)
class Restriction:
    """An operator that reads across removable channels without a parameter that could be silenced.

    It is the `call`-th call of `target` on the tape; `operands` gives, for each argument, the unit of
    every position along its labelled axes. `verify` runs it on the kept positions.
    """

    target: str
    call: int
    kind: str
    operands: tuple[Mapping[int, UnitArray], ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A captured model: what can be removed, what it costs, and why the rest stays.

    `axes_of(value)` gives, for each labelled axis of a value of the tape, the unit of every position.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    tape: Tape
    signature: Signature
    n_units: int
    axes: tuple[Axis, ...]
    groups: tuple[Group, ...]
    works: tuple[Work, ...]
    activations: tuple[Activation, ...]
    size_rules: tuple[SizeRule, ...]
    restrictions: tuple[Restriction, ...]
    axes_of: Callable[[int], Mapping[int, UnitArray]] = field(repr=False)
    reasons: Mapping[tuple[str, int], tuple[str, ...]] = field(repr=False)
    patch_rules: tuple[PatchRule, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Graph({self.signature.model}: {len(self.tape.ops)} operators, {self.n_units} units in "
            f"{len(self.groups)} groups)"
        )

    @cached_property
    def group_of(self) -> UnitArray:
        """For each unit the position of its group in `groups` [n_units]."""
        owner = np.full(self.n_units, PINNED, dtype=np.int64)
        for position, group in enumerate(self.groups):
            for cell in group.cells:
                owner[cell] = position
        return owner

    @cached_property
    def crossed(self) -> tuple[tuple[int, ...], ...]:
        """For each kind of channel of several factors the groups that can take it away, see `Axis`.

        Positions in `groups`, in the order of the factors, so that the last one's units lie side by
        side: heads before dims. A group may be in several: heads with dims of queries, and of values.
        """
        found: dict[tuple[int, ...], None] = {}
        padded = np.append(self.group_of, PINNED)
        for axis in self.axes:
            if axis.units.ndim == 1:
                continue
            for column in np.unique(padded[axis.units], axis=1).T.tolist():
                found[tuple(group for group in column if group != PINNED)] = None
        return tuple(groups for groups in found if len(groups) > 1)

    def plan(self, removed: Mask, *, note: str = "") -> Plan:
        """The plan that removes exactly the units where `removed` [n_units] is True.

        Raises PlanError when the cells of a group would lose unequal numbers of units, or when an
        axis would be left without channels.
        """
        removed = np.asarray(removed)
        if not removed.size:
            removed = removed.astype(np.bool_)  # an empty list has no type of its own
        if removed.shape != (self.n_units,) or removed.dtype != np.bool_:
            raise PlanError(
                f"`removed` must hold one flag (True or False) for each of the {self.n_units} units, got "
                f"{removed.dtype} {list(removed.shape)}"
            )
        for group in self.groups:
            counts = {int(removed[cell].sum()) for cell in group.cells}
            if len(counts) > 1:
                raise PlanError(f"{group}: every cell must lose equally many units, got {sorted(counts)}")
        removal = Removal(removed)
        keeps: dict[int, tuple[int, ...]] = {}
        cuts = []
        for axis in self.axes:
            count = removal.count(axis.units)
            if not count:
                raise PlanError(f"{axis.tensor!r} axis {axis.axis} would keep no channel at all")
            if count < axis.size:
                keep = keeps.get(id(axis.units))
                if keep is None:
                    keep = keeps[id(axis.units)] = tuple(removal.kept(axis.units).tolist())
                cuts.append(Cut(axis.tensor, axis.axis, axis.size, keep, axis.role, axis.blocks))
        patches = [rule.patch(removal.padded) for rule in self.patch_rules] if cuts else []
        needed = tuple(patch for patch in patches if patch is not None)
        return Plan(tuple(cuts), self._sizes(removal), self.signature, note, needed)

    def _sizes(self, removal: Removal) -> tuple[Size, ...]:
        old = self._present_sizes()
        changed = dict(old)
        for rule in self.size_rules:
            key = (rule.module, rule.attribute)
            kept = removal.count(rule.units) // rule.divisor
            current = changed[key]
            if rule.item is None:
                changed[key] = kept
            else:
                assert isinstance(current, tuple)
                changed[key] = (*current[: rule.item], kept, *current[rule.item + 1 :])
        return tuple(Size(*key, old[key], new) for key, new in changed.items() if new != old[key])

    def _present_sizes(self) -> dict[tuple[str, str], SizeValue]:
        """What the model's modules hold now; not while another thread rehearses on it with other sizes."""
        found: dict[tuple[str, str], SizeValue] = {}
        with alone():
            modules = dict(self.model.named_modules())
            for rule in self.size_rules:
                value = getattr(modules[rule.module], rule.attribute)
                found[rule.module, rule.attribute] = value if isinstance(value, int) else tuple(value)
        return found

    def explain(self, name: str) -> str:
        """Why the channels of a module or tensor can or cannot be removed, in words.

        `name` is a module path ("layer3.0.conv1") or a tensor name; raises PlanError if the model has
        neither.
        """
        axes = [a for a in self.axes if a.tensor == name or a.tensor.rpartition(".")[0] == name]
        if not axes:
            known = sorted({a.tensor.rpartition(".")[0] for a in self.axes})
            raise PlanError(f"no parameter or module {name!r} in the graph; it has {', '.join(known)}")
        return "\n".join(line for axis in axes for line in self._explain_axis(axis))

    def _groups_on(self, axis: Axis) -> list[int]:
        """The positions of the groups whose units an axis holds, ascending."""
        found: list[int] = np.unique(self.group_of[axis.units[axis.units >= 0]]).tolist()
        return found

    @cached_property
    def _axes_of_group(self) -> tuple[list[Axis], ...]:
        """For each group the axes that hold its units."""
        found: tuple[list[Axis], ...] = tuple([] for _ in self.groups)
        for axis in self.axes:
            for position in self._groups_on(axis):
                found[position].append(axis)
        return found

    def _explain_axis(self, axis: Axis) -> list[str]:
        free = int(axis.free.sum())
        kind = "written" if axis.role == "writer" else "read"
        lines = [f"{axis.tensor} axis {axis.axis}: {axis.size} channels {kind}, {free} can be removed"]
        for reason in self.reasons.get((axis.tensor, axis.axis), ()):
            lines.append(f"  pinned: {reason}")
        for position in self._groups_on(axis):
            group = self.groups[position]
            others = [f"{a.tensor} axis {a.axis}" for a in self._axes_of_group[position] if a is not axis]
            note = "; changes a norm's statistics" if group.statistics else ""
            lines.append(f"  free: group {group.name} of {group.size} ranks{note}")
            if others:
                lines.append(f"  removed together with: {', '.join(others)}")
        return lines


def require_graph(function: str, graph: object) -> None:
    """Nothing, if `graph` is one; else raises InputError: a model in its place is the usual slip.

    >>> require_graph("macs", nn.ReLU())
    Traceback (most recent call last):
        ...
    compressor.errors.InputError: macs needs a captured graph, got ReLU: give it capture(model, example)
    """
    if not isinstance(graph, Graph):
        raise InputError(
            f"{function} needs a captured graph, got {type(graph).__name__}: give it capture(model, example)"
        )
