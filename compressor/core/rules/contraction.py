"""Matrix products: the summed labels of both sides are one channel."""

from __future__ import annotations

import math

from compressor.core.labels import Ids, Value
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.elementwise import combine
from compressor.core.rules.table import rule

__all__ = ["carry", "contract"]


def contract(call: Call, left: Value, left_axis: int, right: Value, right_axis: int) -> None:
    """Merge the labels of the two summed axes; a side without labels pins the other."""
    if left.shape[left_axis] == 1:
        return
    sides = left.over(left_axis), right.over(right_axis)
    for own, other in ((0, 1), (1, 0)):
        if not sides[other]:
            for layer in sides[own]:
                call.pin(layer, "summed against values without a label")
    layers = [*sides[0], *sides[1]]
    for layer in layers[1:]:
        call.merge(layers[0].ids, layer.ids)
    for value, side in ((left, sides[0]), (right, sides[1])):
        if value.name or (value.static and not (left.static and right.static)):
            for layer in side:
                call.space.read(layer.ids)
    if sides[0] and sides[1] and not left.static and not right.static:
        call.restrict("contraction")


def carry(value: Value, axis: int, target: int) -> Layers:
    """The layers along `axis` of an operand, moved to axis `target` of the result."""
    return tuple(layer.on(target) for layer in value.over(axis))


@rule("aten.mm.default", "aten.bmm.default", "aten.mv.default", "aten.dot.default", "aten.vdot.default")
def product(call: Call) -> list[Layers]:
    """[M, K] x [K, N], the same in batches, with a vector [K], and of two vectors."""
    return [_product(call, call.args[0], call.args[1])]


@rule("aten.addmm.default", "aten.baddbmm.default", "aten.addmv.default")
def added_product(call: Call) -> list[Layers]:
    """bias + product: the bias meets the product element by element."""
    shape = call.shapes[0]
    layers = _product(call, call.args[1], call.args[2])
    return [combine(call, (call.args[0], Value(shape, layers)), shape)]


@rule("aten.linear.default")
def linear(call: Call) -> list[Layers]:
    """[*, I] x [O, I] (+ [O])."""
    x, weight, bias = call.args[0], call.args[1], call.arg(2)
    last, shape = len(x.shape) - 1, call.shapes[0]
    contract(call, x, last, weight, 1)
    layers = tuple(layer for layer in x.layers if layer.axis != last) + carry(weight, 0, last)
    call.work(math.prod(x.shape[:-1]), weight.ids(0), weight.ids(1))
    if bias is not None:
        layers = combine(call, (Value(shape, layers), bias), shape)
    return [layers]


def _product(call: Call, left: Value, right: Value) -> Layers:
    batch = len(left.shape) - 2 if len(left.shape) == 3 else 0
    last = len(left.shape) - 1
    contract(call, left, last, right, batch)
    layers: Layers = ()
    dims: list[Ids] = []
    if batch:
        leads = [Value((v.shape[0],), carry(v, 0, 0)) for v in (left, right)]
        layers += combine(call, leads, (left.shape[0],))
        dims.append(Value((left.shape[0],), layers).ids(0))
    if len(left.shape) > 1:
        layers += carry(left, batch, batch)
        dims.append(left.ids(batch))
    if len(right.shape) > 1:
        layers += carry(right, batch + 1, len(call.shapes[0]) - 1)
        dims.append(right.ids(batch + 1))
    call.work(1, *dims, left.ids(last) if left.over(last) else right.ids(batch))
    return layers
