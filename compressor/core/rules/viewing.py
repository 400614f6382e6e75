"""Views: the same positions under another shape. Labels are reshaped as their tensor was."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from compressor.core.labels import Layer, Value
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.table import rule

__all__ = ["uniform_axes"]


@rule(
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten._reshape_alias.default",
)
def view(call: Call) -> list[Layers]:
    """Each run of axes that a view merges or splits is reshaped on its own, the others stay."""
    value, shape = call.args[0], call.shapes[0]
    layers: list[Layer] = []
    for olds, news in _runs(value.shape, shape):
        here = [layer for layer in value.layers if layer.axis in olds]
        moved = [new for layer in here for new in _reshaped(call, value, layer, olds, news, shape)]
        layers.extend(_shrinking(call, moved, [layer.axis for layer in here], shape))
    return [tuple(layers)]


def _runs(old: tuple[int, ...], new: tuple[int, ...]) -> Iterator[tuple[range, range]]:
    """Pairs of axis ranges (of the old and the new shape) that hold the same elements."""
    i = j = 0
    while i < len(old) or j < len(new):
        first_i, first_j = i, j
        size_i = size_j = 1
        if i < len(old):
            size_i, i = old[i], i + 1
        if j < len(new):
            size_j, j = new[j], j + 1
        while size_i != size_j:
            if (size_i < size_j and i < len(old)) or j >= len(new):
                size_i, i = size_i * old[i], i + 1
            else:
                size_j, j = size_j * new[j], j + 1
        yield range(first_i, i), range(first_j, j)


def _reshaped(
    call: Call, value: Value, layer: Layer, olds: range, news: range, shape: tuple[int, ...]
) -> Iterator[Layer]:
    """One layer through one run of axes."""
    before = math.prod(value.shape[a] for a in olds if a < layer.axis)
    after = math.prod(value.shape[a] for a in olds if a > layer.axis)
    exact = [a for a in news if shape[a] == layer.ids.size]
    for axis in exact:
        if math.prod(shape[a] for a in news if a < axis) == before:
            yield layer.on(axis)
            return
    sizes = [shape[a] for a in news]
    ids = np.tile(np.repeat(layer.ids, after), before).reshape(sizes)
    varying = [position for position, size in enumerate(sizes) if size > 1 and _changes(ids, position)]
    if not varying:
        call.pin(layer, "all its channels are tied to each other")
    elif len(varying) == 1:
        yield Layer(
            news[varying[0]], np.moveaxis(ids, varying[0], 0).reshape(sizes[varying[0]], -1)[:, 0], layer.soft
        )
    else:
        # Heads times dims, groups times channels: labels are known as factors in the next pass.
        parts = [_alike(ids, position) for position in varying]
        spread = [
            np.broadcast_to(part.reshape([-1 if i == at else 1 for i in range(ids.ndim)]), sizes).ravel()
            for at, part in zip(varying, parts, strict=True)
        ]
        if call.split(ids.ravel(), spread, _SPLIT):
            for position, part in zip(varying, parts, strict=True):
                fresh = call.space.new(int(part.max()) + 1)
                call.space.provisional.append(fresh)
                yield Layer(news[position], fresh[part], layer.soft)


def _alike(ids: np.ndarray, axis: int) -> np.ndarray:
    """A number for each position along an axis; the same where all that is there has the same labels."""
    rows = np.moveaxis(ids, axis, 0).reshape(ids.shape[axis], -1)
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()


_SPLIT = "split by a view in a way that its labels cannot follow"


def _changes(ids: np.ndarray, axis: int) -> bool:
    return bool((ids != ids.take([0], axis)).any())


def _shrinking(call: Call, moved: list[Layer], olds: list[int], shape: tuple[int, ...]) -> list[Layer]:
    """A channel axis that was split over several axes shrinks along all of them, or along one only.

    Forward may hold the number of heads, or the length of each: a rehearsal of the pruned model
    refutes what it does not follow.
    """
    axes = sorted({layer.axis for layer in moved}, key=lambda axis: -shape[axis])
    if len(axes) < 2 or len(set(olds)) > 1:
        return moved
    option = call.choose("all axes", *(f"axis {axis}" for axis in axes), "pin")
    for layer in moved if option != "all axes" else ():
        if option != f"axis {layer.axis}":
            call.pin(layer, "split by a view whose sizes are written into forward")
    return moved


@rule("aten.as_strided_.default", "aten.as_strided.default")
def as_strided(call: Call) -> list[Layers]:
    """Other strides for the same shape: harmless where only axes of length one get another stride.

    Pooling to 1x1 of a channels-last tensor ends so.
    """
    value, strides = call.args[0], call.args[2]
    stride = 1
    plain = call.shapes[0] == value.shape and call.arg(3) in (None, 0)
    for size, found in reversed(list(zip(value.shape, strides, strict=False))):
        if size > 1:
            plain = plain and found == stride
            stride *= size
    if not plain or math.prod(value.shape[2:]) != 1:
        call.pin_all("laid out anew in memory")
    return [value.layers] if plain else [()]


# -- axes in another order, new and gone ---------------------------------------------------------


@rule("aten.permute.default")
def permute(call: Call) -> list[Layers]:
    """Axes in another order."""
    order = [a % max(len(call.args[0].shape), 1) for a in call.args[1]]
    return [tuple(layer.on(order.index(layer.axis)) for layer in call.args[0].layers)]


@rule("aten.transpose.int", "aten.transpose_.default", "aten.t.default", "aten.t_.default")
def transpose(call: Call) -> list[Layers]:
    """Two axes swapped."""
    value = call.args[0]
    ndim = len(value.shape)
    if ndim < 2:
        return [value.layers]
    first, second = call.arg(1, 0) % ndim, call.arg(2, 1) % ndim
    swap = {first: second, second: first}
    return [tuple(layer.on(swap.get(layer.axis, layer.axis)) for layer in value.layers)]


@rule("aten.unsqueeze.default", "aten.unsqueeze_.default")
def unsqueeze(call: Call) -> list[Layers]:
    """A new axis of length one."""
    axis = call.args[1] % (len(call.args[0].shape) + 1)
    return [tuple(layer.on(layer.axis + (layer.axis >= axis)) for layer in call.args[0].layers)]


@rule("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze_.dim")
def squeeze(call: Call) -> list[Layers]:
    """Axes of length one taken away."""
    value = call.args[0]
    ndim = len(value.shape)
    asked = call.arg(1)
    axes = (
        range(ndim) if asked is None else [a % ndim for a in ([asked] if isinstance(asked, int) else asked)]
    )
    gone = [a for a in axes if value.shape[a] == 1]
    return [tuple(layer.on(layer.axis - sum(a < layer.axis for a in gone)) for layer in value.layers)]


# -- repetition ----------------------------------------------------------------------------------


def uniform_axes(call: Call, old: tuple[int, ...]) -> Layers:
    """Soft layers for the axes along which the result repeats a single position of the operand."""
    layers = []
    for axis, size in enumerate(call.shapes[0]):
        if old[axis] == 1 and size > 1:
            for ids in call.fresh(size, axis):
                if call.choose("free", "pin") == "pin":
                    call.space.pin(ids, f"a size written into forward ({call.where})")
                layers.append(Layer(axis, ids, soft=True))
    return tuple(layers)


@rule("aten.expand.default")
def expand(call: Call) -> list[Layers]:
    """Repeats along axes of length one: there the values are uniform and take what they meet."""
    value = call.args[0]
    lead = len(call.shapes[0]) - len(value.shape)
    kept = tuple(layer.on(layer.axis + lead) for layer in value.layers)
    return [kept + uniform_axes(call, (1,) * lead + value.shape)]


@rule("aten.repeat.default")
def repeat(call: Call) -> list[Layers]:
    """Tiles; an axis of length one becomes uniform."""
    value, times = call.args[0], call.args[1]
    lead = len(times) - len(value.shape)
    kept = tuple(
        Layer(layer.axis + lead, np.tile(layer.ids, times[layer.axis + lead]), layer.soft)
        for layer in value.layers
    )
    return [kept + uniform_axes(call, (1,) * lead + value.shape)]
