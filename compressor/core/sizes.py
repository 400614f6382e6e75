"""What every recorded operator's shapes and size arguments become under a removal.

This is how sizes written into a `forward` are found: a rehearsed pruned model is compared with what
is expected here, operator by operator.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.core.channels import Mask, UnitArray, any_free, free, gone
from compressor.core.coupling import Coupling
from compressor.core.graph import PatchRule
from compressor.core.labels import Ids
from compressor.core.pick_rules import makers, origins, pick_rule, spare
from compressor.core.picks import Pick, Shift
from compressor.core.tape import RECURRENT_WEIGHTS, Op, Ref, Tape, references, without_use
from compressor.core.units import Units

__all__ = ["Mask", "Number", "Sizes", "actual", "kind_of", "numbers_of", "scalars_of", "steps"]


@dataclass(frozen=True, eq=False)
class Number:
    """A number among an operator's sizes: kept(units) // divisor.

    `place` says which size argument it is, see `actual`; `labels` [n] are those of the units where it
    is the length of an axis without factors.
    """

    units: UnitArray
    divisor: int = 1
    place: int = 0
    labels: Ids | None = None

    def follows(self, other: Number) -> bool:
        """Whether it is the same number under every removal."""
        return self.divisor == other.divisor and np.array_equal(self.units, other.units)

    def old(self) -> int:
        """Its value in the model as captured."""
        return int(self.units.shape[-1]) // self.divisor

    def new(self, padded: Mask) -> int:
        """Its value once the units flagged in `padded` [n_units + 1] are gone."""
        return int((~gone(self.units, padded)).sum()) // self.divisor


class Sizes:
    """Shapes and size arguments of one tape as functions of what is removed."""

    def __init__(self, tape: Tape, number: int, coupling: Coupling, units: Units) -> None:
        self._tape, self._number, self._coupling, self._units = tape, number, coupling, units
        self._axes: dict[int, dict[int, UnitArray]] = {}
        self._units_of: dict[int, UnitArray] = {}
        self._stacked: dict[tuple[int, ...], UnitArray] = {}
        self._removal: Mask | None = None
        self._kept: dict[int, int] = {}
        self._shapes: dict[int, tuple[int, ...]] = {}
        # Kernels leave by-products (saved statistics, indices) whose shapes depend on the device.
        self._dead = without_use(tape)
        live = (op for op in tape.ops if op.index not in self._dead)
        self._used = {*tape.outputs, *(ref for op in live for ref in references(op.args))}
        self._picks = {op: own for (tape_, op), own in coupling.picks.items() if tape_ == number}
        self._used.difference_update(spare(tape, self._picks))
        made_by = makers(tape) if self._picks else {}
        self._origins = {
            op: set().union(*(origins(tape, made_by, pick.index) for pick in own if isinstance(pick, Pick)))
            for op, own in self._picks.items()
        }
        self._behind = set().union(*self._origins.values())

    def axes(self, value: int) -> dict[int, UnitArray]:
        """For each labelled axis of a value the unit of each position."""
        axes = self._axes.get(value)
        if axes is None:
            axes = self._axes[value] = self._find_axes(value)
        return axes

    def _find_axes(self, value: int) -> dict[int, UnitArray]:
        known = self._coupling.values[self._number][value]
        if known is None or not known.layers:
            return {}
        found: dict[int, list[UnitArray]] = {}
        for layer in known.layers:
            # One labelling passes through many operators: its units are looked up once.
            units = self._units_of.get(id(layer.ids))
            if units is None:
                units = self._units_of[id(layer.ids)] = self._units.of(layer.ids)
            found.setdefault(layer.axis, []).append(units)
        return {axis: self._together(rows) for axis, rows in found.items()}

    def _together(self, rows: list[UnitArray]) -> UnitArray:
        """The factors of one axis, without those that nothing can take away."""
        if len(rows) == 1:
            return rows[0]
        rows = [row for row in rows if any_free(row)] or rows[:1]
        if len(rows) == 1:
            return rows[0]
        key = tuple(map(id, rows))
        if key not in self._stacked:
            self._stacked[key] = np.stack(rows)
        return self._stacked[key]

    def shape(self, value: int, padded: Mask) -> tuple[int, ...]:
        """The value's shape after the removal."""
        if padded is not self._removal:
            self._removal, self._kept, self._shapes = padded, {}, {}
        known = self._shapes.get(value)
        if known is None:
            shape = list(self._tape.values[value].shape)
            for axis, units in self.axes(value).items():
                shape[axis] = self._count(units, padded)
            known = self._shapes[value] = tuple(shape)
        return known

    def _count(self, units: UnitArray, padded: Mask) -> int:
        """Kept positions; the same arrays come back for tensor after tensor."""
        key = id(units)
        if key not in self._kept:
            self._kept[key] = units.shape[-1] - int(np.count_nonzero(gone(units, padded)))
        return self._kept[key]

    def numbers(self, op: Op) -> Iterator[Number]:
        """Every number that `op` may have taken from the model: size arguments, then output lengths."""
        yield from self.arguments(op)
        for out in op.outputs:
            if out is not None:
                yield from self._lengths(out)

    def entering(self, op: Op) -> Iterator[Number]:
        """The lengths of what `op` takes: a forward may have checked them before."""
        for value in references(op.args):
            yield from self._lengths(value)

    def _lengths(self, value: int) -> Iterator[Number]:
        known = self._coupling.value(self._number, value)
        for axis, units in self.axes(value).items():
            own = known.over(axis)
            yield Number(units, labels=own[0].ids if len(own) == 1 else None)

    def is_dead(self, op: Op) -> bool:
        """Whether nothing reads what the operator computes."""
        return op.index in self._dead

    def is_static(self, value: int) -> bool:
        """Whether the value depends on nothing but parameters and constants, not on inputs."""
        return self._coupling.value(self._number, value).static

    def is_used(self, value: int) -> bool:
        """Whether anything reads the value, but for its numbers as positions that follow a cut."""
        return value in self._used

    def picks(self, op: Op) -> Iterator[tuple[Pick | Shift, PatchRule]]:
        """The positions in a call that must follow what is removed, and the rules for them."""
        for pick in self._picks.get(op.index, ()):
            units = self.axes(op.args[0].value).get(pick.axis)
            rule = None if units is None or not free(units).any() else pick_rule(op, pick, units)
            if rule is not None:
                yield pick, rule

    def behind_picks(self, op: int | None = None) -> Collection[int]:
        """The operators that computed the positions that `op` picks, or any operator does."""
        return self._behind if op is None else self._origins.get(op, ())

    def bounds(self, op: Op) -> Iterator[tuple[Number, Number]]:
        """Where a slice or split cuts through a labelled axis, each with the length of that axis."""
        shape = self._tape.values[op.args[0].value].shape
        place = 1 if op.target == "aten.slice.Tensor" else 2
        along = (op.args[place] if len(op.args) > place else 0) % len(shape)
        units = self.axes(op.args[0].value).get(along)
        if units is None:
            return
        if place == 1:
            ends = list(_bounds(op, shape[along])[:2])
        else:
            sizes = [self._tape.values[out].shape[along] for out in op.outputs if out is not None]
            ends = np.cumsum(sizes).tolist()
        yield from ((Number(units[..., :end]), Number(units)) for end in ends if 0 < end < units.shape[-1])

    def shares(self, op: Op) -> Iterator[tuple[Number, Number]]:
        """What padding puts before a labelled axis, with all that it puts there: forward may halve it."""
        for axis, units in self.axes(op.outputs[0]).items():  # type: ignore[arg-type]
            pair = len(self._tape.values[op.args[0].value].shape) - 1 - axis
            before, after = op.args[1][2 * pair : 2 * pair + 2] or (0, 0)
            if before > 0 and after > 0:
                ends = np.concatenate([units[..., :before], units[..., units.shape[-1] - after :]], axis=-1)
                yield Number(units[..., :before]), Number(ends)

    def arguments(self, op: Op) -> list[Number]:
        """The size arguments that shapes do not show: slice bounds, padding, groups."""
        if op.target == "aten.slice.Tensor":
            return self._slice(op)
        if op.target == "aten.constant_pad_nd.default":
            return self._padding(op)
        if op.target == "aten.convolution.default" and op.args[8] > 1:
            return self._groups(op, op.args[8], 1)
        if op.target == "aten.native_group_norm.default":
            return self._groups(op, op.args[6], 0)
        if op.target == "aten.native_layer_norm.default":
            axes = self.axes(op.args[0].value)
            first = len(self._tape.values[op.args[0].value].shape) - len(op.args[1])
            return [Number(units, place=a - first) for a, units in axes.items() if a >= first]
        return []

    def _slice(self, op: Op) -> list[Number]:
        source = op.args[0].value
        shape = self._tape.values[source].shape
        axis = (op.args[1] if len(op.args) > 1 else 0) % len(shape)
        units = self.axes(source).get(axis)
        start, stop, step = _bounds(op, shape[axis])
        if units is None or step != 1:
            return []
        return [Number(units[..., :start]), Number(units[..., :stop], place=1)]

    def _padding(self, op: Op) -> list[Number]:
        shape = self._tape.values[op.args[0].value].shape
        result = []
        for axis, units in self.axes(op.outputs[0]).items():  # type: ignore[arg-type]
            pair = len(shape) - 1 - axis
            before, after = op.args[1][2 * pair : 2 * pair + 2] or (0, 0)
            if (before, after) != (0, 0):
                result.append(Number(units[..., :before], place=2 * pair))
                result.append(Number(units[..., units.shape[-1] - after :], place=2 * pair + 1))
        return result

    def _groups(self, op: Op, groups: int, position: int) -> list[Number]:
        """The group count follows the channels where each group has one channel in or out."""
        out = self.axes(op.outputs[0]).get(1)  # type: ignore[arg-type]
        ref = op.args[position]
        assert isinstance(ref, Ref)
        shape = self._tape.values[ref.value].shape
        if out is None:
            return []
        if position == 0:
            return [Number(out)] if groups == out.shape[-1] else []
        whole = shape[1] == 1 or shape[0] == groups
        return [Number(out, out.shape[-1] // groups)] if whole else []


def steps(tape: Tape) -> list[Op]:
    """The operators of a tape without copies, which come and go with the layout of memory."""
    return [op for op in tape.ops if op.target not in _UNSEEN]


# The second is no operator: it says which weights of a recurrent layer belong together.
_UNSEEN = ("aten.clone.default", RECURRENT_WEIGHTS)


def kind_of(target: str) -> str:
    """What an operator does; a reshape is a view, with or without a copy."""
    return "aten.view.default" if target in _VIEWS else target


_VIEWS = ("aten._unsafe_view.default", "aten._reshape_alias.default")


def numbers_of(op: Op) -> tuple[object, ...]:
    """The plain numbers that an operator computes with, or makes a tensor of."""
    if op.target == "aten.lift_fresh.default":
        return tuple(item.tolist() for item in op.indices.values())
    if op.is_pointwise or op.target in _FILLED:
        return tuple(x for x in (*op.args, *op.kwargs.values()) if isinstance(x, (int, float)))
    return ()


def scalars_of(op: Op, target: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[object, ...]:
    """What `numbers_of` gives for `op`, of another call of the same operator."""
    if target == "aten.lift_fresh.default":
        return tuple(x.tolist() if x.device.type != "meta" else None for x in args if op.indices)
    if op.is_pointwise or target in _FILLED:
        return tuple(x for x in (*args, *kwargs.values()) if isinstance(x, (int, float)))
    return ()


_FILLED = tuple(f"aten.{name}.default" for name in ("full", "new_full", "full_like", "scalar_tensor"))


def actual(target: str, args: tuple[Any, ...], place: int) -> int:
    """A size argument of a call with real operands: a slice bound, a padding amount, a number of groups."""
    if target == "aten.slice.Tensor":
        shape = args[0].shape
        axis = (args[1] if len(args) > 1 else 0) % len(shape)
        start, stop, step = (args[i] if len(args) > i else None for i in (2, 3, 4))
        return slice(start, stop, step).indices(shape[axis])[place]
    if target in ("aten.constant_pad_nd.default", "aten.native_layer_norm.default"):
        return int(args[1][place])
    return int(args[8] if target == "aten.convolution.default" else args[6])


def _bounds(op: Op, size: int) -> tuple[int, int, int]:
    start, stop, step = (op.args[i] if len(op.args) > i else None for i in (2, 3, 4))
    return slice(start, stop, step).indices(size)
