"""Two sets of vectors against each other: distances, and forms that are linear in both."""

from __future__ import annotations

import math

from compressor.core.labels import Value
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.contraction import carry, contract
from compressor.core.rules.elementwise import combine
from compressor.core.rules.meeting import join
from compressor.core.rules.movement import all_but
from compressor.core.rules.table import rule

__all__: list[str] = []


@rule("aten._cdist_forward.default", "aten._euclidean_dist.default")
def distances(call: Call) -> list[Layers]:
    """[*, P, M] and [*, R, M] to [*, P, R]: channels that are zero on both sides add nothing."""
    one, other = call.args[0], call.args[1]
    last = len(one.shape) - 1
    for layer in one.over(last):
        call.changes_statistics(layer)
    here, there = one.over(last), other.over(len(other.shape) - 1)
    if here and there:
        join(call, here, there)
    else:
        for layer in (*here, *there):
            call.pin(layer, "compared with values whose channels are fixed")
    call.restrict("contraction", {0: [last], 1: [len(other.shape) - 1]})
    shape, ndim = call.shapes[0], len(call.shapes[0])
    leads = []
    for value in (one, other):
        ahead = len(value.shape) - 2
        leads.append(Value(value.shape[:ahead], tuple(x for x in value.layers if x.axis < ahead)))
    rows = carry(one, len(one.shape) - 2, ndim - 2)
    return [(*combine(call, leads, shape[:-2]), *rows, *carry(other, len(other.shape) - 2, ndim - 1))]


@rule("aten._trilinear.default")
def trilinear(call: Call) -> list[Layers]:
    """The product of three operands, each with new axes of length one, summed over some axes."""
    operands = [_widened(value, set(new)) for value, new in zip(call.args[:3], call.args[3:6], strict=True)]
    shape = tuple(max(sizes) for sizes in zip(*(value.shape for value in operands), strict=True))
    layers = combine(call, operands, shape)
    summed = set(call.args[6])
    readers = [value for value in operands if value.silent]
    for layer in layers:
        if layer.axis not in summed:
            continue
        read = [own for value in readers for own in value.over(layer.axis)]
        for own in read:
            call.space.read(own.ids)
        if not read:
            call.pin(layer, "summed in a product of three that no parameter reads")
    call.work(math.prod(shape))
    kept = (layer for layer in layers if layer.axis not in summed)
    return [tuple(layer.on(layer.axis - sum(a < layer.axis for a in summed)) for layer in kept)]


def _widened(value: Value, new: set[int]) -> Value:
    """The operand with axes of length one at the places `new` of the result."""
    ndim = len(value.shape) + len(new)
    places = [axis for axis in range(ndim) if axis not in new]
    sizes = iter(value.shape)
    shape = tuple(1 if axis in new else next(sizes) for axis in range(ndim))
    moved = tuple(layer.on(places[layer.axis]) for layer in value.layers)
    return Value(shape, moved, value.static, value.name, value.silent)


@rule("aten.conv_tbc.default")
def convolution_of_time_first(call: Call) -> list[Layers]:
    """[T, B, I] with a kernel [K, I, O] and a bias [O]."""
    x, weight, bias = call.args[:3]
    all_but(call, x, [0], "positions that a kernel slides over")
    all_but(call, weight, [0], "the kernel's extent")
    summed = contract(call, (0, 2), (1, 1))
    shape = call.shapes[0]
    layers = (*carry(x, 1, 1), *carry(weight, 2, 2))
    call.work(math.prod(shape[:2]) * weight.shape[0], weight.ids(2), summed)
    return [combine(call, (Value(shape, layers), bias), shape)]
