"""Operators that move whole positions: flips, padding, shuffles, unfolding, indexing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from compressor.core.labels import NEUTRAL, Layer, Value
from compressor.core.picks import shifts_of
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.table import rule

__all__ = ["all_but"]


def all_but(call: Call, value: Value, axes: Iterable[int], reason: str) -> Layers:
    """The layers off `axes`; those on them are pinned."""
    refused = set(axes)
    for layer in value.layers:
        if layer.axis in refused:
            call.pin(layer, reason)
    return tuple(layer for layer in value.layers if layer.axis not in refused)


@rule("aten.flip.default")
def flip(call: Call) -> list[Layers]:
    """Reversed along axes."""
    value = call.args[0]
    axes = {a % len(value.shape) for a in call.args[1]}
    return [tuple(x.with_ids(x.ids[::-1]) if x.axis in axes else x for x in value.layers)]


@rule("aten.rot90.default")
def rotate(call: Call) -> list[Layers]:
    """Turned in the plane of two axes."""
    value = call.args[0]
    plane = [a % len(value.shape) for a in call.arg(2, (0, 1))]
    return [all_but(call, value, plane, "positions that a rotation moves")]


@rule("aten.roll.default")
def roll(call: Call) -> list[Layers]:
    """Shifted in a circle; along a labelled axis the shift follows what is removed."""
    value = call.args[0]
    axes = [a % len(value.shape) for a in call.arg(2, [])] or range(len(value.shape))
    if not any(layer.axis in axes for layer in value.layers):
        return [value.layers]
    shifts = shifts_of(call.op, len(value.shape))
    if shifts is None or call.choose("follow", "pin") == "pin":
        return [all_but(call, value, axes, "rolled by a number of channels written into forward")]
    own = [shift for shift in shifts if value.over(shift.axis)]
    call.picks.extend(own)
    moved = {shift.axis: shift.number for shift in own}
    return [tuple(x.with_ids(np.roll(x.ids, moved.get(x.axis, 0))) for x in value.layers)]


@rule("aten.constant_pad_nd.default")
def constant_pad(call: Call) -> list[Layers]:
    """A constant around the tensor; new positions of a labelled axis take what they meet."""
    value, amounts = call.args[0], call.args[1]
    layers = []
    for layer in value.layers:
        pair = len(value.shape) - 1 - layer.axis
        before, after = amounts[2 * pair : 2 * pair + 2] or (0, 0)
        if min(before, after) < 0:
            call.pin(layer, "cropped by negative padding")
        elif (before, after) == (0, 0):
            layers.append(layer)
        else:
            layers.append(layer.with_ids(np.concatenate([*_ends(call, layer, before, after)])))
    return [tuple(layers)]


def _ends(call: Call, layer: Layer, before: int, after: int) -> Iterable[np.ndarray]:
    """The labels of a padded factor: new ones at both ends, which say nothing of further factors."""
    first = next(x for x in call.args[0].over(layer.axis)) is layer
    ends = [call.space.new(n) if first else np.full(n, NEUTRAL) for n in (before, after)]
    if call.choose("free", "pin") == "pin":
        for ids in ends:
            call.space.pin(ids, f"padding written into forward ({call.where})")
    return ends[0], layer.ids, ends[1]


_PADS = ("reflection_pad", "replication_pad")


@rule(*(f"aten.{name}{n}d.default" for name in _PADS for n in (1, 2, 3)))
def spatial_pad(call: Call) -> list[Layers]:
    """Borders made of the tensor's own positions."""
    value = call.args[0]
    first = len(value.shape) - len(call.args[1]) // 2
    return [all_but(call, value, range(first, len(value.shape)), "positions that a padding repeats")]


def _channels_to(
    call: Call, axis: int, relabel: Callable[[np.ndarray], np.ndarray], out_axis: int | None = None
) -> list[Layers]:
    """Relabel the channel axis of an operator that also moves the axes after it."""
    value = call.args[0]
    spatial = range(axis + 1, len(value.shape))
    layers = []
    for layer in all_but(call, value, spatial, "positions that the operator moves"):
        if layer.axis == axis:
            layer = Layer(axis if out_axis is None else out_axis, relabel(layer.ids), layer.soft)
        if layer.ids.size > 1:
            layers.append(layer)
        else:
            call.pin(layer, "the only channel")
    return [tuple(layers)]


@rule("aten.pixel_shuffle.default")
def pixel_shuffle(call: Call) -> list[Layers]:
    """r² consecutive channels become one of r times the resolution: they live and die together."""
    count = call.args[1] ** 2
    return _channels_to(call, len(call.args[0].shape) - 3, lambda ids: call.tie(ids.reshape(-1, count)))


@rule("aten.pixel_unshuffle.default")
def pixel_unshuffle(call: Call) -> list[Layers]:
    """One channel becomes r² consecutive ones."""
    count = call.args[1] ** 2
    return _channels_to(call, len(call.args[0].shape) - 3, lambda ids: np.repeat(ids, count))


@rule("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def channel_shuffle(call: Call) -> list[Layers]:
    """Channels read column by column from `groups` rows: whole columns live and die together."""
    groups = call.args[1]
    return _channels_to(call, 1, lambda ids: np.repeat(call.tie(ids.reshape(groups, -1).T), groups))


@rule("aten.im2col.default")
def im2col(call: Call) -> list[Layers]:
    """[N, C, H, W] to [N, C·kh·kw, L]: every channel is repeated for each kernel position."""
    count = int(np.prod(call.args[1]))
    return _channels_to(call, 1, lambda ids: np.repeat(ids, count))


@rule("aten.col2im.default")
def col2im(call: Call) -> list[Layers]:
    """[N, C·kh·kw, L] back to [N, C, H, W]."""
    count = int(np.prod(call.args[2]))
    return _channels_to(call, 1, lambda ids: call.tie(ids.reshape(-1, count)))


@rule("aten.unfold.default")
def unfold(call: Call) -> list[Layers]:
    """Sliding windows along one axis, which must not carry labels."""
    value = call.args[0]
    return [all_but(call, value, [call.args[1] % len(value.shape)], "cut into windows")]


@rule("aten.repeat_interleave.self_int")
def repeat_interleave(call: Call) -> list[Layers]:
    """Each position several times in a row."""
    value, times, axis = call.args[0], call.args[1], call.arg(2)
    if axis is None:
        call.pin_all("flattened and repeated")
        return [()]
    axis %= len(value.shape)
    return [tuple(x.with_ids(np.repeat(x.ids, times)) if x.axis == axis else x for x in value.layers)]


@rule("aten.tril.default", "aten.triu.default")
def triangle(call: Call) -> list[Layers]:
    """Zero above or below the diagonal of the last two axes."""
    value = call.args[0]
    ndim = len(value.shape)
    return [all_but(call, value, (ndim - 2, ndim - 1), "axes whose diagonal is counted from the corner")]


@rule("aten.diagonal.default")
def diagonal(call: Call) -> list[Layers]:
    """Two axes become one, the last."""
    value = call.args[0]
    ndim = len(value.shape)
    gone = {call.arg(place, place - 2) % ndim for place in (2, 3)}
    kept = all_but(call, value, gone, "axes whose diagonal is taken")
    return [tuple(layer.on(layer.axis - sum(a < layer.axis for a in gone)) for layer in kept)]


@rule("aten.diag_embed.default")
def diagonal_matrix(call: Call) -> list[Layers]:
    """The last axis becomes the diagonal of two."""
    value, ndim = call.args[0], len(call.shapes[0])
    new = sorted({call.arg(2, -2) % ndim, call.arg(3, -1) % ndim})
    places = [axis for axis in range(ndim) if axis not in new]
    kept = all_but(call, value, [len(value.shape) - 1], "made the diagonal of two axes")
    return [tuple(layer.on(places[layer.axis]) for layer in kept)]
