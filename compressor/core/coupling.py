"""Labels run through recorded operators: which channels are one, which are pinned, what it all costs.

Knows tapes and rules; knows nothing of units, scores or plans. Several tapes of one model (eval and
training mode) share the labels of its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compressor.core.factors import Factors
from compressor.core.labels import Ids, LabelSpace, Layer, Split, Value
from compressor.core.picks import Pick, Shift
from compressor.core.rules import RULES
from compressor.core.rules.call import Call, Layers, Restriction, WorkFact
from compressor.core.rules.elementwise import pointwise
from compressor.core.tape import Op, Ref, Tape, without_use

__all__ = ["PIN_ALL", "Choices", "Coupling", "couple"]

# How an ambiguous operator is read: (tape, operator) -> option. See `Call.choose`.
Choices = Mapping[tuple[int, int], str]
PIN_ALL = "pin all"
_COPIES = frozenset(f"aten.{name}.default" for name in ("clone", "_to_copy", "detach", "_unsafe_view"))


@dataclass(slots=True)
class Coupling:
    """Everything the rules stated. `values[t][v]` is value `v` of tape `t`.

    `picks` are the positions in calls that must follow what is removed, by tape and operator.
    """

    space: LabelSpace
    values: list[list[Value | None]] = field(default_factory=list)
    works: list[tuple[int, WorkFact]] = field(default_factory=list)
    restrictions: list[tuple[int, Restriction]] = field(default_factory=list)
    options: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    picks: dict[tuple[int, int], tuple[Pick | Shift, ...]] = field(default_factory=dict)

    def value(self, tape: int, ref: int) -> Value:
        """The labelled value behind a reference of a tape."""
        value = self.values[tape][ref]
        assert value is not None
        return value


def couple(tapes: Sequence[Tape], choices: Choices, factors: Factors | None = None) -> Coupling:
    """Run labels through the tapes, reading ambiguous operators as `choices` says.

    `factors` are those found in an earlier run; it learns what this one finds.
    """
    factors = Factors() if factors is None else factors
    while True:
        coupling = Coupling(LabelSpace(factors.by_origin))
        parameters = _Parameters(coupling.space, tapes)
        splits: list[tuple[int, Split]] = []
        for number, tape in enumerate(tapes):
            _Runner(coupling, parameters, number, tape, choices, factors).run()
            splits.extend((number, split) for split in coupling.space.splits)
            coupling.space.splits.clear()
        if not splits:
            return coupling
        factors.refine(coupling.space, splits)


class _Parameters:
    """Labels of parameters and floating-point buffers, given out at first use."""

    def __init__(self, space: LabelSpace, tapes: Sequence[Tape]) -> None:
        self._space = space
        self._layers: dict[str, Layers] = {}
        self._blocks = _blocked(tapes)
        self._block_ids: dict[str, tuple[Ids, ...]] = {}

    def layers(self, name: str, shape: tuple[int, ...]) -> Layers:
        """One layer for each factor of each axis longer than one."""
        if name not in self._layers:
            layers: list[Layer] = []
            for axis, size in enumerate(shape):
                blocks = self._blocks.get(name, 1) if axis == 1 else 1
                if size > 1 and blocks == 1:
                    layers.extend(Layer(axis, ids) for ids in self._space.parameter_axis(name, axis, size))
                elif blocks > 1:
                    factors = self._space.parameter_axis(name, axis, size * blocks, blocks)
                    self._block_ids[name] = tuple(ids.reshape(blocks, size) for ids in factors)
            self._layers[name] = tuple(layers)
        return self._layers[name]

    def blocks(self, name: str, groups: int, columns: int) -> tuple[Ids, ...]:
        """Labels [groups, columns] of axis 1 of a grouped convolution's weight, factor by factor."""
        if name in self._block_ids:
            return self._block_ids[name]
        own = [layer.ids for layer in self._layers[name] if layer.axis == 1]
        return tuple(np.broadcast_to(ids.reshape(1, columns), (groups, columns)) for ids in own)


def _blocked(tapes: Sequence[Tape]) -> dict[str, int]:
    """Weights used by nothing but grouped convolutions of one group count, with that count.

    Only there may each group keep its own input channels; a second use would see them mixed up.
    """
    uses: dict[str, set[int]] = {}
    for tape in tapes:
        for op in tape.ops:
            conv = op.target == "aten.convolution.default"
            for position, arg in enumerate(op.args):
                if isinstance(arg, Ref) and tape.values[arg.value].name:
                    shape = tape.values[arg.value].shape
                    groups = op.args[8] if conv and position == 1 else 1
                    if groups > 1 and (shape[1] == 1 or shape[0] == groups):
                        groups = 1
                    uses.setdefault(tape.values[arg.value].name, set()).add(groups)
                elif isinstance(arg, (list, tuple)):
                    for item in arg:
                        if isinstance(item, Ref) and tape.values[item.value].name:
                            uses.setdefault(tape.values[item.value].name, set()).add(1)
    return {name: next(iter(counts)) for name, counts in uses.items() if len(counts) == 1}


class _Aliases:
    """Which values of a tape share memory."""

    def __init__(self) -> None:
        self._families: dict[int, list[int]] = {}

    def join(self, new: int, old: int) -> None:
        """`new` is a view of `old`, or `old` itself after it was written to."""
        family = self._families.setdefault(old, [old])
        family.append(new)
        self._families[new] = family

    def of(self, ref: int) -> list[int]:
        """The values that share memory with this one, itself included."""
        return self._families[ref]


class _Runner:
    """One tape's labels."""

    def __init__(
        self,
        coupling: Coupling,
        parameters: _Parameters,
        number: int,
        tape: Tape,
        choices: Choices,
        factors: Factors,
    ) -> None:
        self.coupling, self.parameters, self.number, self.tape = coupling, parameters, number, tape
        self.choices, self.factors = choices, factors
        self.values: list[Value | None] = [None] * len(tape.values)
        self.inputs = frozenset(tape.inputs)
        self._aliases = _Aliases()
        self._dead = without_use(tape)
        coupling.values.append(self.values)

    def run(self) -> None:
        """Every operator in order; what the model returns is pinned."""
        for op in self.tape.ops:
            self._operator(op)
        for output in self.tape.outputs:
            for layer in self._value(output).layers:
                self.coupling.space.pin(layer.ids, "it is an output of the model")

    def _value(self, ref: int) -> Value:
        value = self.values[ref]
        if value is None:
            meta = self.tape.values[ref]
            layers: Layers = ()
            if meta.name and (meta.dtype.is_floating_point or meta.dtype.is_complex):
                layers = self.parameters.layers(meta.name, meta.shape)
            static, named = ref not in self.inputs, bool(meta.name)
            value = Value(meta.shape, layers, static, meta.name, silent=named)
            self.values[ref] = value
        return value

    def _resolve(self, item: Any) -> Any:
        if isinstance(item, Ref):
            return self._value(item.value)
        if isinstance(item, (list, tuple)):
            return [self._resolve(x) for x in item]
        return item

    def _operator(self, op: Op) -> None:
        metas = self.tape.values
        shapes = tuple(metas[out].shape if out is not None else () for out in op.outputs)
        call = Call(
            op,
            tuple([self._resolve(arg) for arg in op.args]),
            {key: self._resolve(value) for key, value in op.kwargs.items()} if op.kwargs else {},
            shapes,
            self.coupling.space,
            self.choices.get((self.number, op.index), ""),
            (self.number, op.index),
            (self.number, op.index) not in self.factors.unsplittable,
            block_labels=self.parameters.blocks,
        )
        if call.choice == PIN_ALL:
            call.pin_all("a size written into forward, or a branch on one")
        # What is computed and dropped (a slice taken for its shape) says nothing of channels.
        results = [()] * len(shapes) if op.index in self._dead else self._apply_rule(call)
        static = all(value.static for value in call.values())
        moved = op.is_view or op.target in _COPIES
        silent = moved and all(value.silent for value in call.values())
        for out, shape, layers in zip(op.outputs, shapes, results, strict=True):
            if out is not None:
                self.values[out] = Value(shape, layers, static, silent=silent)
                if op.is_view:
                    self._aliases.join(out, op.args[0].value)
        for old, new in op.mutated:
            # Labels of what was overwritten were merged with what came in: they stay right.
            self.values[new] = replace(self._value(old), shape=metas[new].shape)
            self._aliases.join(new, old)
            for alias in self._aliases.of(new):
                self._overwritten(alias, static)
        self.coupling.works.extend((self.number, work) for work in call.works)
        self.coupling.restrictions.extend((self.number, r) for r in call.restrictions)
        if call.picks:
            self.coupling.picks[self.number, op.index] = tuple(call.picks)
        for index, options in call.choices.items():
            self.coupling.options[self.number, index] = options

    def _overwritten(self, ref: int, static: bool) -> None:
        """The value shares memory with one that was written to, from static values or others."""
        value = self._value(ref)
        self.values[ref] = replace(value, static=value.static and static, silent=False)

    def _apply_rule(self, call: Call) -> list[Layers]:
        function = RULES.get(call.op.target)
        none: list[Layers] = [()] * len(call.shapes)
        if function is not None:
            return function(call)
        if not any(value.layers for value in call.values()):
            return none
        if call.op.is_pointwise:
            return pointwise(call)
        call.pin_all(f"no rule for operator {call.op.target}")
        return none
