"""Matrix products: the summed labels of both sides are one channel."""

from __future__ import annotations

import math

from compressor.core.labels import Ids, Value
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.elementwise import combine
from compressor.core.rules.meeting import join
from compressor.core.rules.table import rule

__all__ = ["Side", "carry", "contract"]

# An operand's position among the arguments, and the axis of it that is summed.
Side = tuple[int, int]


def contract(call: Call, left: Side, right: Side) -> Ids:
    """Merge the labels of the two summed axes; a side without labels pins the other. Those labels."""
    one: Value = call.args[left[0]]
    other: Value = call.args[right[0]]
    here, there = one.over(left[1]), other.over(right[1])
    met = join(call, here, there) if here and there else ()
    for layer in (*here, *there) if not (here and there) else ():
        call.pin(layer, "reads values whose channels are fixed, such as an input or a constant")
    _silence(call, left, right)
    return Value(one.shape, tuple(layer.on(left[1]) for layer in met) or here).ids(left[1])


def _silence(call: Call, left: Side, right: Side) -> None:
    """Say how the reference of `verify` keeps removed labels out of the sum.

    Zeros in the parameter do it where the operand is the parameter itself; one that was computed from
    parameters (standardised weights, say) need not be zero there, so its sum is restricted.
    """
    values: list[Value] = [call.args[position] for position, _ in (left, right)]
    layers = [value.over(axis) for value, (_, axis) in zip(values, (left, right), strict=True)]
    weights_only = all(value.static for value in values)
    for value, own in zip(values, layers, strict=True):
        if value.silent or (value.static and not weights_only):
            for layer in own:
                call.space.read(layer.ids)
    if all(layers) and not any(value.silent for value in values):
        call.restrict("contraction", {position: [axis] for position, axis in (left, right)})


def carry(value: Value, axis: int, target: int) -> Layers:
    """The layers along `axis` of an operand, moved to axis `target` of the result."""
    return tuple(layer.on(target) for layer in value.over(axis))


@rule(
    "aten.mm.default",
    "aten.bmm.default",
    "aten.mv.default",
    "aten.dot.default",
    "aten.vdot.default",
)
def product(call: Call) -> list[Layers]:
    """[M, K] x [K, N], the same in batches, with a vector [K], and of two vectors."""
    return [_product(call, 0, 1)]


@rule("aten.addmm.default", "aten.baddbmm.default", "aten.addmv.default")
def added_product(call: Call) -> list[Layers]:
    """Bias + product: the bias meets the product element by element."""
    shape = call.shapes[0]
    layers = _product(call, 1, 2)
    return [combine(call, (call.args[0], Value(shape, layers)), shape)]


@rule("aten.linear.default")
def linear(call: Call) -> list[Layers]:
    """[*, I] x [O, I] (+ [O])."""
    x, weight, bias = call.args[0], call.args[1], call.arg(2)
    last, shape = len(x.shape) - 1, call.shapes[0]
    summed = contract(call, (0, last), (1, 1))
    layers = tuple(layer for layer in x.layers if layer.axis != last) + carry(weight, 0, last)
    call.work(math.prod(x.shape[:-1]), weight.ids(0), summed)
    if bias is not None:
        layers = combine(call, (Value(shape, layers), bias), shape)
    return [layers]


def _product(call: Call, first: int, second: int) -> Layers:
    left, right = call.args[first], call.args[second]
    batch = len(left.shape) - 2 if len(left.shape) == 3 else 0
    last = len(left.shape) - 1
    summed = contract(call, (first, last), (second, batch))
    if len(right.shape) == 1 and left.static and right.static:
        # A weight is measured (spectral norm), and all of it scaled by what comes out.
        for layer in (*left.over(last), *right.over(0)):
            call.changes_statistics(layer)
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
    call.work(1, *dims, summed)
    return layers
