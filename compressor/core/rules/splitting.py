"""Taking tensors apart and putting them together along an axis."""

from __future__ import annotations

import itertools
import math

import numpy as np

from compressor.core.labels import NEUTRAL, Ids, Layer
from compressor.core.pieces import PIECES
from compressor.core.rules.call import MEETS_FIXED, Call, Layers
from compressor.core.rules.meeting import join
from compressor.core.rules.table import rule

__all__: list[str] = []


def _take(call: Call, layers: Layers, axis: int, index: slice) -> Layers:
    """Layers of a run of positions along `axis`; a single position cannot go and is pinned."""
    taken = tuple(x.with_ids(x.ids[index]) if x.axis == axis else x for x in layers)
    for layer in taken:
        if layer.ids.size == 1 and layer.ids[0] != NEUTRAL:
            call.pin(layer, "a slice of one channel")
    return tuple(layer for layer in taken if layer.ids.size > 1)


@rule("aten.slice.Tensor")
def slice_(call: Call) -> list[Layers]:
    """A run of positions, or every step-th of them."""
    value = call.args[0]
    axis = call.arg(1, 0) % len(value.shape)
    bounds = slice(call.arg(2), call.arg(3), call.arg(4, 1))
    index = slice(*bounds.indices(value.shape[axis]))
    if call.shapes[0] == value.shape:
        return [value.layers]
    layers = tuple(_cut_through(call, x, index) if x.axis == axis else x for x in value.layers)
    return [_take(call, layers, axis, index)]


def _cut_through(call: Call, layer: Layer, index: slice) -> Layer:
    """State what a slice bound demands of the labels it cuts through."""
    size = layer.ids.size
    if index.step != 1:
        if size % index.step:
            call.pin(layer, "sliced with a step that does not divide the axis")
            return layer
        return layer.with_ids(np.repeat(call.tie(layer.ids.reshape(-1, index.step)), index.step))
    option = call.choose("free", "equal", "pin")
    if option == "equal":
        # Bounds computed from the length (`c // 4`) follow it as long as all runs between them do.
        run = math.gcd(size, index.start, index.stop)
        call.equal(layer.ids.reshape(-1, run), "slices of equal size")
    elif option != "free":
        for bound in (call.arg(2), call.arg(3)):
            call.pin(layer.with_ids(_fixed(layer.ids, bound)), "a slice bound written into forward")
    return layer


def _fixed(ids: Ids, bound: int | None) -> Ids:
    """The labels that must stay for a bound to name the same place: all on the side it counts from."""
    if bound is None or not -ids.size <= bound < ids.size:
        return ids[:0]
    return ids[:bound] if bound >= 0 else ids[bound:]


@rule("aten.select.int")
def select(call: Call) -> list[Layers]:
    """One position of an axis, which then disappears."""
    if PIECES in call.kwargs:
        return [call.kwargs[PIECES][0].layers]
    value = call.args[0]
    axis, index = call.args[1] % len(value.shape), call.args[2]
    for layer in value.over(axis):
        # The number in forward names the same position only while none on its side moves.
        side = slice(None, index + 1) if index >= 0 else slice(index, None)
        call.pin(layer.with_ids(layer.ids[side]), "a position picked by its number")
    return [_dropped(value.layers, axis)]


def _dropped(layers: Layers, axis: int) -> Layers:
    """The layers that remain when an axis disappears."""
    return tuple(x.on(x.axis - (x.axis > axis)) for x in layers if x.axis != axis)


@rule("aten.unbind.int")
def unbind(call: Call) -> list[Layers]:
    """One output for each position of an axis, which keeps its length."""
    if PIECES in call.kwargs:
        return [piece.layers for piece in call.kwargs[PIECES]]
    value = call.args[0]
    axis = call.arg(1, 0) % len(value.shape)
    for layer in value.over(axis):
        call.pin(layer, "taken apart position by position")
    whole = _dropped(value.layers, axis)
    pieces = [whole] * value.shape[axis]
    if call.op.is_loose:
        pieces[1:] = [_anew(call, whole, number) for number in range(1, len(pieces))]
        _as_many(call, pieces)
    return pieces


def _anew(call: Call, layers: Layers, number: int) -> Layers:
    """Labels of their own for one more piece of a uniform constant."""
    hard = tuple(layer for layer in layers if not layer.soft)
    sizes = {layer.axis: layer.ids.size for layer in layers if layer.soft}
    soft = (Layer(a, ids, True) for a, n in sizes.items() for ids in call.fresh(n, (number, a)))
    return (*hard, *soft)


@rule("aten.split.Tensor", "aten.split_with_sizes.default", "aten.unsafe_split.Tensor")
def split(call: Call) -> list[Layers]:
    """Consecutive runs. Pieces of one size stay of one size, sizes listed one by one may differ."""
    value = call.args[0]
    axis = call.arg(2, 0) % len(value.shape)
    sizes = [shape[axis] for shape in call.shapes]
    listed = call.op.target == "aten.split_with_sizes.default"
    for layer in value.over(axis) if len(sizes) > 1 else ():
        option = call.choose("free", "equal", "pin") if listed else call.choose("equal", "pin")
        if option == "equal" and len(set(sizes)) == 1:
            call.equal(layer.ids.reshape(len(sizes), -1), "pieces of a split stay of equal size")
        elif option != "free":
            call.pin(layer, "split into sizes that forward fixes")
    bounds = np.cumsum([0, *sizes]).tolist()
    return [_take(call, value.layers, axis, slice(a, b)) for a, b in itertools.pairwise(bounds)]


@rule("aten.glu.default")
def glu(call: Call) -> list[Layers]:
    """The first half of an axis gated by the second: position i goes with position i + n."""
    value = call.args[0]
    axis = call.arg(1, -1) % len(value.shape)
    layers = tuple(
        x.with_ids(call.tie(x.ids.reshape(2, -1).T)) if x.axis == axis else x for x in value.layers
    )
    return [_take(call, layers, axis, slice(None))]


@rule("aten.cat.default")
def cat(call: Call) -> list[Layers]:
    """Operands in a row: each brings its labels, one without labels brings OPAQUE positions."""
    operands = [value for value in call.args[0] if value.shape != (0,)]
    axis = call.arg(1, 0) % len(call.shapes[0])
    joined: Layers = ()
    over = [value.over(axis) for value in operands]
    if any(over):
        soft = all(layer.soft for layers in over for layer in layers)
        factors = max(map(len, over))
        rows = [_filled(value.ids(axis), factors) for value in operands]
        joined = tuple(Layer(axis, ids, soft) for ids in np.concatenate(rows, axis=1))
    beside = [tuple(x for x in value.layers if x.axis != axis) for value in operands]
    return [joined + _agreed(call, beside)]


def _filled(ids: Ids, factors: int) -> Ids:
    """Labels [factors, length]; factors that an operand does not have say nothing of its positions."""
    rows = np.full((factors, ids.shape[-1]), NEUTRAL, dtype=np.int64)
    rows[: 1 if ids.ndim == 1 else len(ids)] = ids
    return rows


@rule("aten.stack.default")
def stack(call: Call) -> list[Layers]:
    """Operands along a new axis."""
    axis = call.arg(1, 0) % len(call.shapes[0])
    if call.op.is_loose:
        agreed = _as_many(call, [value.layers for value in call.args[0]])
    else:
        agreed = _agreed(call, [value.layers for value in call.args[0]])
    return [tuple(layer.on(layer.axis + (layer.axis >= axis)) for layer in agreed)]


def _as_many(call: Call, beside: list[Layers]) -> Layers:
    """The layers of the first operand, of which the others lose as many channels."""
    for axis in {layer.axis for layers in beside for layer in layers}:
        own = [[layer for layer in layers if layer.axis == axis] for layers in beside]
        if len({*map(len, own)}) > 1:
            for layer in (layer for layers in own for layer in layers):
                call.pin(layer, MEETS_FIXED)
            continue
        for factor in zip(*own, strict=True):
            rows = np.stack([layer.ids for layer in factor])
            call.space.equal(rows, f"pieces of a stack have one size ({call.where})")
    return beside[0]


def _agreed(call: Call, beside: list[Layers]) -> Layers:
    """Labels along the other axes are the same channels in every operand."""
    kept: dict[int, Layers] = {}
    for layers in beside:
        for axis in dict.fromkeys(layer.axis for layer in layers):
            kept[axis] = join(call, kept.get(axis, ()), tuple(x for x in layers if x.axis == axis))
    for axis, found in kept.items():
        if not all(any(x.axis == axis for x in layers) for layers in beside):
            for layer in found:
                call.pin(layer, MEETS_FIXED)
    return tuple(layer for found in kept.values() for layer in found)
