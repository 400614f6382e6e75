"""From a model and example inputs to a Graph: record, couple, solve, count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from compressor.core.attributes import layer_sizes
from compressor.core.coupling import Coupling, couple
from compressor.core.graph import Activation, Graph, UnitArray, Work
from compressor.core.surgery import signature_of
from compressor.core.tape import Tape, record
from compressor.core.units import Units, find_units

__all__ = ["capture"]


def capture(model: nn.Module, *args: Any, **kwargs: Any) -> Graph:
    tape = record(model, args, kwargs)
    coupling = couple((tape,), {})
    return build(model, args, kwargs, (tape,), coupling)


def build(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tapes: Sequence[Tape],
    coupling: Coupling,
) -> Graph:
    """Solve the coupling and put everything a user of the graph needs together."""
    units = find_units(coupling.space)
    return Graph(
        model,
        tuple(args),
        dict(kwargs),
        tapes[0],
        signature_of(model),
        units.count,
        units.axes,
        units.groups,
        _works(coupling, units),
        _activations(coupling, units, tapes[0]),
        layer_sizes(model, units.axes),
        units.reasons,
    )


def _works(coupling: Coupling, units: Units) -> tuple[Work, ...]:
    return tuple(
        Work(
            fact.op.index,
            fact.op.module,
            fact.op.target,
            fact.coefficient,
            tuple(units.of(ids) for ids in fact.dims),
            fact.divisor,
        )
        for tape, fact in coupling.works
        if tape == 0
    )


def _activations(coupling: Coupling, units: Units, tape: Tape) -> tuple[Activation, ...]:
    found = []
    for op in tape.ops:
        if op.is_view or op.mutated:
            continue
        for out in op.outputs:
            if out is None or coupling.values[0][out] is None:
                continue
            value, meta = coupling.value(0, out), tape.values[out]
            dims, fixed = [], math.prod(value.shape)
            for layer in value.layers:
                ids: UnitArray = units.of(layer.ids)
                dims.append(ids)
                fixed //= max(ids.size, 1)
            found.append(
                Activation(op.index, op.module, op.target, fixed, tuple(dims), meta.dtype.itemsize)
            )
    return tuple(found)

