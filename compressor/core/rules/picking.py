"""Operators that pick, write or add positions by index tensors.

Along an axis that is indexed the labels are pinned: the numbers in the index would have to follow a
cut. Along all other axes they carry on, and what is written meets what is overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from compressor.core.labels import Value
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.elementwise import combine
from compressor.core.rules.table import rule

__all__: list[str] = []

_PICKED = "picked by indices that do not follow a cut"


def _beside(call: Call, value: Value, axes: Iterable[int]) -> Layers:
    """The layers off the indexed `axes`; those on them are pinned."""
    indexed = set(axes)
    for layer in value.layers:
        if layer.axis in indexed:
            call.pin(layer, _PICKED)
    return tuple(layer for layer in value.layers if layer.axis not in indexed)


def _pin_index(call: Call, items: Iterable[Value | None]) -> None:
    for item in items:
        for layer in item.layers if item is not None else ():
            call.pin(layer, "positions of an index")


@rule("aten.index_select.default")
def index_select(call: Call) -> list[Layers]:
    """Positions of one axis."""
    value = call.args[0]
    _pin_index(call, call.args[2:3])
    return [_beside(call, value, [call.args[1] % len(value.shape)])]


@rule("aten.embedding.default")
def embedding(call: Call) -> list[Layers]:
    """Rows of a table: the vocabulary is pinned, the width carries on."""
    return [_width(call, len(call.shapes[0]) - 1)]


@rule("aten._embedding_bag.default", "aten._embedding_bag_forward_only.default")
def embedding_bag(call: Call) -> list[Layers]:
    """Sums or means of rows of a table, and counts."""
    return [_width(call, 1), *[()] * (len(call.shapes) - 1)]


def _width(call: Call, axis: int) -> Layers:
    table = call.args[0]
    for layer in table.over(0):
        call.pin(layer, "rows of an embedding")
    return tuple(layer.on(axis) for layer in table.over(1))


# -- advanced indexing: one index tensor for each of some axes ---------------------------------------


@rule("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(call: Call) -> list[Layers]:
    """x[i, :, j]: the indexed axes make way for those of the index, the others move up."""
    value, items = call.args[0], call.args[1]
    _pin_index(call, items)
    found = _indexed(value, items, len(call.shapes[0]))
    if found is None:
        call.pin_all("beside an advanced index")
        return [()]
    axes, places = found
    return [tuple(layer.on(places[layer.axis]) for layer in _beside(call, value, axes))]


@rule("aten.index_put.default", "aten.index_put_.default", "aten._unsafe_index_put.default")
def index_put(call: Call) -> list[Layers]:
    """x[i, :, j] = y: what is written is broadcast to the shape of what is picked."""
    value, items, written = call.args[0], call.args[1], call.args[2]
    _pin_index(call, items)
    count = _index_dims(value, items)
    if count is None:
        call.pin_all("beside an advanced index")
        return [()]
    taken, ndim = count
    found = _indexed(value, items, len(value.shape) - taken + ndim)
    assert found is not None
    axes, places = found
    kept = _beside(call, value, axes)
    shape = [2] * (len(value.shape) - taken + ndim)  # of an index nothing matters but that it varies
    for axis, place in places.items():
        shape[place] = value.shape[axis]
    part = Value(tuple(shape), tuple(layer.on(places[layer.axis]) for layer in kept))
    combine(call, [part, written], part.shape)
    return [kept]


def _indexed(
    value: Value, items: Sequence[Value | None], ndim: int
) -> tuple[list[int], dict[int, int]] | None:
    """The indexed axes, and where the others stand in a result of `ndim` axes; None if unclear."""
    axes = [axis for axis, item in enumerate(items) if item is not None]
    dims = max(len(item.shape) for item in items if item is not None)
    if len(value.shape) - len(axes) + dims != ndim:
        axes = _masked(value, items)  # a mask stands for as many axes as it has
        dims = 1
        if len(value.shape) - len(axes) + dims != ndim:
            return None
    together = axes[-1] - axes[0] + 1 == len(axes)
    before = axes[0] if together else 0
    rest = [axis for axis in range(len(value.shape)) if axis not in axes]
    return axes, {axis: place + (dims if place >= before else 0) for place, axis in enumerate(rest)}


def _masked(value: Value, items: Sequence[Value | None]) -> list[int]:
    axes: list[int] = []
    position = 0
    for item in items:
        width = 1 if item is None else max(len(item.shape), 1)
        if item is not None:
            axes.extend(range(position, position + width))
        position += width
    return axes


def _index_dims(value: Value, items: Sequence[Value | None]) -> tuple[int, int] | None:
    """How many axes an index takes and how many it puts there, or None where that is not clear.

    A write does not show its shape, so an index that may be a mask over several axes is unclear
    unless it fits them.
    """
    given = [(axis, item) for axis, item in enumerate(items) if item is not None]
    dims = max(len(item.shape) for _, item in given)
    if len(given) == 1 and dims > 1:
        axis, item = given[0]
        if value.shape[axis : axis + dims] == item.shape:
            return dims, 1
    if len(given) > 1 and dims > 1:
        return None
    return len(given), max(dims, 0)


# -- one axis, with an index as large as the result --------------------------------------------------


@rule("aten.gather.default")
def gather(call: Call) -> list[Layers]:
    """out[i, j] = x[index[i, j], j]: off the axis, x and index meet position by position."""
    value, picked = call.args[0], call.args[2]
    axis = call.args[1] % len(value.shape)
    return [combine(call, [_along(call, x, axis, picked) for x in (value, picked)], picked.shape)]


_SCATTERS = ("scatter", "scatter_", "scatter_add", "scatter_add_")
_OVERLOADS = ("src", "value", "default", "reduce", "value_reduce")


@rule(
    *(f"aten.{name}.{overload}" for name in _SCATTERS for overload in _OVERLOADS),
    "aten.scatter_reduce.two",
    "aten.scatter_reduce_.two",
)
def scatter(call: Call) -> list[Layers]:
    """x[index[i, j], j] = source[i, j]: off the axis, all three meet position by position."""
    value, picked = call.args[0], call.args[2]
    axis = call.args[1] % len(value.shape)
    operands = [x for x in (value, picked, call.arg(3)) if isinstance(x, Value)]
    combine(call, [_along(call, x, axis, picked) for x in operands], picked.shape)
    return [tuple(layer for layer in value.layers if layer.axis != axis)]


def _along(call: Call, value: Value, axis: int, picked: Value) -> Value:
    """The operand as large as the index, without labels along `axis`."""
    layers = []
    for layer in value.layers:
        if layer.axis == axis:
            call.pin(layer, _PICKED)
        elif value.shape[layer.axis] == picked.shape[layer.axis]:
            layers.append(layer)
        else:
            call.pin(layer, "longer than the index beside it")
    return Value(picked.shape, tuple(layers))


_INTO = ("index_add", "index_add_", "index_copy", "index_copy_", "index_reduce", "index_reduce_")
_FILLS = (
    "index_fill.int_Scalar",
    "index_fill_.int_Scalar",
    "index_fill.int_Tensor",
    "index_fill_.int_Tensor",
)


@rule(*(f"aten.{name}.default" for name in _INTO), *(f"aten.{name}" for name in _FILLS))
def index_into(call: Call) -> list[Layers]:
    """x[:, index] = source: off the axis, both meet position by position."""
    value, source = call.args[0], call.arg(3)
    axis = call.args[1] % max(len(value.shape), 1)
    _pin_index(call, [call.args[2]])
    kept = _beside(call, value, [axis])
    if isinstance(source, Value) and source.shape:
        combine(call, [Value(source.shape, kept), source], source.shape)
    return [kept]
