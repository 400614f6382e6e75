"""Reading and writing positions by index tensors.

Positions that are the same in every run follow a cut. Axes indexed otherwise are pinned, the others
carry on.
"""

from __future__ import annotations

from collections.abc import Iterable

from compressor.core.labels import Value
from compressor.core.picks import Pick, pick_of
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.elementwise import combine
from compressor.core.rules.movement import all_but
from compressor.core.rules.table import rule

__all__: list[str] = []

_PICKED = "picked by indices that do not follow a cut"


def _axis(call: Call, place: int = 1) -> int:
    return int(call.args[place]) % max(len(call.args[0].shape), 1)


def _beside(call: Call, values: Iterable[Value], axis: int, reason: str) -> list[Layers]:
    """Operands that agree in every axis but `axis`, whose labels are pinned; the layers of the others."""
    shape = tuple(1 if a == axis else n for a, n in enumerate(call.shapes[0]))
    operands = []
    for value in values:
        own = all_but(call, value, [axis], reason)
        if len(value.shape) == len(shape):
            operands.append(Value(tuple(1 if a == axis else n for a, n in enumerate(value.shape)), own))
    whole = [v for v in operands if all(m in (n, 1) for m, n in zip(v.shape, shape, strict=True))]
    for value in operands:
        for layer in value.layers if value not in whole else ():
            call.pin(layer, "an index that covers a part of the axis")
    return [combine(call, whole, shape)]


# -- along one axis ------------------------------------------------------------------------------


@rule("aten.index_select.default")
def index_select(call: Call) -> list[Layers]:
    """Positions picked by number."""
    pick = _followed(call, call.args[2])
    if pick is not None:
        return [_picked(call, pick)]
    return [all_but(call, call.args[0], [_axis(call)], _PICKED)]


def _followed(call: Call, index: Value) -> Pick | None:
    """The pick, where it is to follow what is removed."""
    value = call.args[0]
    # Rows of a table of the model's own are looked up, and stay.
    if value.static or not index.static:
        return None
    pick = pick_of(call.op, value.shape)
    if pick is None or not value.over(pick.axis) or call.choose("follow", "pin") != "follow":
        return None
    call.picks.append(pick)
    return pick


def _picked(call: Call, pick: Pick) -> Layers:
    """The layers after a pick; a single position cannot go and is pinned."""
    layers = []
    for layer in call.args[0].layers:
        if layer.axis == pick.axis:
            layer = layer.with_ids(layer.ids[pick.positions])
            if layer.ids.size == 1:
                call.pin(layer, "a position picked by its number")
                continue
        layers.append(layer)
    return tuple(layers)


@rule("aten.gather.default")
def gather(call: Call) -> list[Layers]:
    """Positions picked along one axis, by an index for each position of the others."""
    value, index, axis = call.args[0], call.args[2], _axis(call)
    beside = [(m, n) for a, (m, n) in enumerate(zip(value.shape, index.shape, strict=False)) if a != axis]
    pick = _followed(call, index) if all(m == n for m, n in beside) else None
    if pick is None:
        return _beside(call, (value, index), axis, _PICKED)
    others = Value(value.shape, tuple(layer for layer in value.layers if layer.axis != axis))
    (rest,) = _beside(call, (others, index), axis, _PICKED)
    return [(*rest, *(layer for layer in _picked(call, pick) if layer.axis == axis))]


_SCATTERS = (
    *("scatter.src", "scatter.value", "scatter_add.default", "scatter_reduce.two", "scatter.reduce"),
    *("scatter.value_reduce", "scatter_.src", "scatter_.value", "scatter_add_.default"),
    *("scatter_reduce_.two", "scatter_.reduce", "scatter_.value_reduce"),
)


@rule(*(f"aten.{name}" for name in _SCATTERS))
def scatter(call: Call) -> list[Layers]:
    """Positions written along one axis, at an index for each position of the others."""
    return _beside(call, list(call.values()), _axis(call), "written to by indices that do not follow a cut")


_INDEXED_WRITES = (
    *("index_add.default", "index_copy.default", "index_fill.int_Scalar", "index_fill.int_Tensor"),
    *("index_add_.default", "index_copy_.default", "index_fill_.int_Scalar", "index_fill_.int_Tensor"),
    *("index_reduce.default", "index_reduce_.default"),
)


@rule(*(f"aten.{name}" for name in _INDEXED_WRITES))
def write_along(call: Call) -> list[Layers]:
    """Whole slices written along one axis."""
    operands = [v for v in (call.args[0], call.arg(3)) if isinstance(v, Value)]
    return _beside(call, operands, _axis(call), "written to by indices that do not follow a cut")


# -- several axes at once ------------------------------------------------------------------------


@rule("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(call: Call) -> list[Layers]:
    """Advanced indexing: new axes come where the indexed ones stood side by side, else in front."""
    value = call.args[0]
    indices = [item for item in call.args[1] if item is not None]
    pick = _followed(call, indices[0]) if len(indices) == 1 else None
    if pick is not None:
        return [_picked(call, pick)]
    places = _places(call.args[1], len(value.shape), len(call.shapes[0]))
    if places is None:
        call.pin_all("beside an advanced index")
        return [()]
    kept = all_but(call, value, [a for a, to in enumerate(places) if to is None], _PICKED)
    moved = tuple((layer, places[layer.axis]) for layer in kept)
    return [tuple(layer.on(to) for layer, to in moved if to is not None)]


@rule("aten.index_put.default", "aten.index_put_.default", "aten._unsafe_index_put.default")
def index_put(call: Call) -> list[Layers]:
    """What an advanced index reads is written; labels that meet there are one channel."""
    target, source = call.args[0], call.args[2]
    ndim = len(target.shape)
    if _as_mask(call.args[1], target.shape) and all(n == 1 for n in source.shape):
        # One number where a mask says so.
        mask = next(v for v in call.args[1] if v is not None)
        over = Value((*mask.shape, *(1 for _ in target.shape[len(mask.shape) :])), mask.layers)
        return [combine(call, (target, over), target.shape)]
    taken = _taken(call.args[1], None)
    width = max((len(v.shape) for v in call.args[1] if isinstance(v, Value)), default=1)
    masked = [v for v in call.args[1] if isinstance(v, Value) and len(v.shape) > 1]
    if masked and _as_mask(call.args[1], target.shape):
        taken, width = set(range(len(masked[0].shape))), 1
    places = _placed(taken, width, ndim)
    kept = all_but(call, target, taken, "written to by indices that do not follow a cut")
    read = Value(target.shape, kept)
    shape = tuple(target.shape[a] if a in dict(_kept(places)) else 1 for a in range(ndim))
    lead = ndim - len(taken) + width - len(source.shape)
    back = {to - lead: a for a, to in _kept(places)}
    written = tuple(layer.on(back[layer.axis]) for layer in source.layers if layer.axis in back)
    for layer in source.layers:
        if layer.axis not in back:
            call.pin(layer, "written to by indices that do not follow a cut")
    own = tuple(
        source.shape[to - lead] if to is not None and 0 <= to - lead < len(source.shape) else 1
        for to in places
    )
    return [combine(call, (Value(shape, read.layers), Value(own, written)), shape)]


def _as_mask(items: list[Value | None], shape: tuple[int, ...]) -> bool:
    """Whether the one index has the shape of the leading axes, as a mask has."""
    (only,) = items if len(items) == 1 else (None,)
    return only is not None and only.shape == shape[: len(only.shape)]


def _kept(places: list[int | None]) -> list[tuple[int, int]]:
    return [(a, to) for a, to in enumerate(places) if to is not None]


def _taken(items: list[Value | None], mask: int | None) -> set[int]:
    """The indexed axes; a mask of several axes takes as many."""
    return set(range(mask)) if mask else {a for a, item in enumerate(items) if item is not None}


def _places(items: list[Value | None], ndim: int, new_ndim: int) -> list[int | None] | None:
    """Where each axis goes, None for an indexed one; None altogether where that cannot be told."""
    indices = [item for item in items if item is not None]
    width = max(len(item.shape) for item in indices)
    taken = _taken(items, None)
    if ndim - len(taken) + width == new_ndim:
        return _placed(taken, width, ndim)
    if len(items) == len(indices) == 1 and ndim - width + 1 == new_ndim:
        return _placed(_taken(items, width), 1, ndim)
    return None


def _placed(taken: set[int], width: int, ndim: int) -> list[int | None]:
    """Where each axis goes when `taken` ones are replaced by `width` new ones."""
    together = max(taken) - min(taken) + 1 == len(taken)
    at = min(taken) if together else 0
    places: list[int | None] = []
    for axis in range(ndim):
        before = axis - sum(a < axis for a in taken)
        places.append(None if axis in taken else before + (width if before >= at else 0))
    return places


# -- tables --------------------------------------------------------------------------------------


@rule("aten.embedding.default")
def embedding(call: Call) -> list[Layers]:
    """Rows of a table: the vocabulary is pinned, the width carries on."""
    table, last = call.args[0], len(call.shapes[0]) - 1
    width = all_but(call, table, [0], "rows of an embedding")
    return [tuple(layer.on(last) for layer in width)]


@rule("aten._embedding_bag.default", "aten._embedding_bag_forward_only.default")
def embedding_bag(call: Call) -> list[Layers]:
    """Rows of a table summed in bags: the width carries on, and so it does to the places of maxima."""
    width = all_but(call, call.args[0], [0], "rows of an embedding")
    size = call.args[0].shape[1]
    return [width if shape[1:] == (size,) else () for shape in call.shapes]


@rule("aten.bucketize.Tensor", "aten.isin.Tensor_Tensor", "aten.searchsorted.Tensor")
def looked_up(call: Call) -> list[Layers]:
    """Each element is looked up in a list, which stays."""
    searched = call.args[0] if call.op.target == "aten.searchsorted.Tensor" else call.args[1]
    value = call.args[1] if searched is call.args[0] else call.args[0]
    all_but(call, searched, range(len(searched.shape)), "a list that is searched")
    if len(searched.shape) > 1:
        all_but(call, value, range(len(value.shape)), "looked up in several lists")
        return [()]
    return [value.layers]


@rule("aten.slice_scatter.default", "aten.select_scatter.default")
def write_slice(call: Call) -> list[Layers]:
    """A part of one axis is replaced."""
    target, source = call.args[0], call.args[1]
    axis = call.arg(2, 0) % len(target.shape)
    if len(source.shape) < len(target.shape):
        moved = tuple(layer.on(layer.axis + (layer.axis >= axis)) for layer in source.layers)
        source = Value((*source.shape[:axis], 1, *source.shape[axis:]), moved)
    return _beside(call, (target, source), axis, "a part of the axis is replaced")
