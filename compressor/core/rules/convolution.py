"""Convolutions of any dimension: plain, grouped, depthwise, transposed."""

from __future__ import annotations

import math

import numpy as np

from compressor.core.labels import OPAQUE, Ids, Layer, Value
from compressor.core.rules.call import MEETS_FIXED, Call, Layers
from compressor.core.rules.contraction import carry, contract
from compressor.core.rules.elementwise import combine
from compressor.core.rules.meeting import join
from compressor.core.rules.table import rule

__all__: list[str] = []


@rule("aten.convolution.default", "aten.convolution_overrideable.default")
def convolution(call: Call) -> list[Layers]:
    """Input channels are summed against the weight's, output channels come from it."""
    x, weight, bias = call.args[0], call.args[1], call.args[2]
    transposed, groups = bool(call.args[6]), int(call.args[8])
    shape = call.shapes[0]
    for value, what in (
        (x, "positions that a kernel slides over"),
        (weight, "the kernel's extent"),
    ):
        for layer in value.layers:
            if layer.axis > 1:
                call.pin(layer, what)
    ungrouped = _plain if groups == 1 else _grouped
    out = ungrouped(call, x, weight, groups, transposed)
    layers: Layers = carry(x, 0, 0)
    if shape[1] > 1:
        layers += out
    if bias is not None:
        vector = Value((1, shape[1], *(1 for _ in shape[2:])), carry(bias, 0, 1))
        layers = combine(call, (Value(shape, layers), vector), shape)
    return [layers]


def _positions(call: Call, x: Value, weight: Value, transposed: bool) -> int:
    """How many products one weight channel pair takes: kernel size times where it is applied."""
    extent = x.shape if transposed else call.shapes[0]
    return extent[0] * math.prod(extent[2:]) * math.prod(weight.shape[2:])


def _plain(call: Call, x: Value, weight: Value, _groups: int, transposed: bool) -> Layers:
    in_axis, out_axis = (0, 1) if transposed else (1, 0)
    summed = contract(call, (0, 1), (1, in_axis))
    call.work(_positions(call, x, weight, transposed), weight.ids(out_axis), summed)
    return carry(weight, out_axis, 1)


def _grouped(call: Call, x: Value, weight: Value, groups: int, transposed: bool) -> Layers:
    """Weights are [O, I/g] or, transposed, [I, O/g]; group a holds the a-th run of rows."""
    columns = weight.shape[1]
    if weight.shape[0] == groups and columns == 1:
        return _depthwise(call, x, weight, transposed)
    rows = call.only_ids(weight, 0).reshape(groups, -1)
    entering = call.only_ids(x, 1).reshape(groups, -1)
    times = _positions(call, x, weight, transposed)
    whole = 1 in (rows.shape[1], columns)
    if call.choose("whole" if whole else "equal", "pin") == "pin":
        call.pin_all("a grouped convolution whose number of groups is written into forward")
    if whole:
        # One channel in or out for each group: a group lives or dies as a whole.
        lead = call.tie(rows)[:, None]
        call.merge(entering, lead)
        for layer in weight.over(1):
            call.pin(layer, "the width of a group in a convolution with one channel for each group")
        call.work(times * columns, rows.ravel())
        return (Layer(1, (np.repeat(lead, columns, 1) if transposed else rows).ravel()),)
    block = _block_labels(call, weight, groups, columns)
    for side in (rows, block):
        call.equal(side, "groups of a convolution stay of equal size")
    read, leaving = (rows, block) if transposed else (block, rows)
    call.merge(entering, read)
    call.space.read(read)
    if not weight.silent:
        call.restrict("contraction", {0: [1]})
    call.work(times, rows.ravel(), block.ravel(), divisor=groups)
    return (Layer(1, leaving.ravel()),)


def _depthwise(call: Call, x: Value, weight: Value, transposed: bool) -> Layers:
    """One channel in and out for each group: the weight's rows meet the channels one by one."""
    if call.choose("whole", "pin") == "pin":
        call.pin_all("a grouped convolution whose number of groups is written into forward")
    rows, entering = carry(weight, 0, 1), x.over(1)
    met = join(call, entering, rows) if entering and rows else ()
    for layer in (*rows, *entering) if not met else ():
        call.pin(layer, MEETS_FIXED)
    out = met or rows
    call.work(_positions(call, x, weight, transposed), Value(x.shape, out).ids(1))
    return out


def _block_labels(call: Call, weight: Value, groups: int, columns: int) -> Ids:
    """Labels [groups, columns] of axis 1: each group has its own where the weight is a bare parameter."""
    if weight.name:
        first, *others = call.block_labels(weight.name, groups, columns)
        for ids in others:
            call.space.pin(ids, f"split into heads or groups elsewhere ({call.where})")
        return first
    plain = weight.over(1)
    if len(plain) == 1:
        return np.broadcast_to(plain[0].ids, (groups, columns))
    for layer in plain:
        call.pin(layer, "the width of a group in a computed weight")
    return np.full((groups, columns), OPAQUE, dtype=np.int64)
