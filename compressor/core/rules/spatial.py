"""Operators on the spatial axes: pooling and interpolation. Channels pass through."""

from __future__ import annotations

from compressor.core.labels import Value
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.elementwise import combine
from compressor.core.rules.table import rule

__all__: list[str] = []

_NAMES = {
    1: """max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d max_pool1d_with_indices
        upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d""",
    2: """max_pool2d avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d max_pool2d_with_indices
        fractional_max_pool2d upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d
        upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa""",
    3: """max_pool3d avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d max_pool3d_with_indices
        fractional_max_pool3d upsample_nearest3d _upsample_nearest_exact3d upsample_trilinear3d""",
}
_SPATIAL_AXES = {name: count for count, names in _NAMES.items() for name in names.split()}


@rule(*(f"aten.{name}.{overload}" for name in _SPATIAL_AXES for overload in ("default", "vec")))
def spatial(call: Call) -> list[Layers]:
    """Labels of channels pass; labels along spatial axes are pinned."""
    name = call.op.target.split(".")[1]
    first = len(call.args[0].shape) - _SPATIAL_AXES[name]
    if name.startswith("fractional"):
        # Random places for each sample and channel.
        lead = call.args[0].shape[:first]
        places = [Value(lead, _passing(call, value, first)) for value in (call.args[0], call.args[3])]
        return [combine(call, places, lead)] * len(call.shapes)
    return [_passing(call, call.args[0], first, _untouched(call, name, first))] * len(call.shapes)


def _untouched(call: Call, name: str, first: int) -> frozenset[int]:
    """Axes on which a pooling has windows of one position, one after the other."""
    if not name.startswith(("avg_pool", "max_pool")):
        return frozenset()
    count = _SPATIAL_AXES[name]
    kernel, padding = call.args[1], call.arg(3) or [0]
    steps = [list(given) * (count // len(given)) for given in (kernel, call.arg(2) or kernel, padding)]
    return frozenset(first + i for i, step in enumerate(zip(*steps, strict=True)) if step == (1, 1, 0))


def _passing(call: Call, value: Value, first: int, untouched: frozenset[int] = frozenset()) -> Layers:
    """The layers before the axis `first` and on `untouched` ones; those on the others are pinned."""
    mixed = [layer for layer in value.layers if layer.axis >= first and layer.axis not in untouched]
    for layer in mixed:
        call.pin(layer, "positions that pooling or interpolation mixes")
    return tuple(layer for layer in value.layers if layer not in mixed)


@rule("aten.max_unpool2d.default", "aten.max_unpool3d.default")
def max_unpool(call: Call) -> list[Layers]:
    """Values placed where the indices of a pooling say: each channel of them in its own channel."""
    places = int(call.op.target[len("aten.max_unpool")])
    lead = call.shapes[0][: len(call.shapes[0]) - places]
    operands = [Value(lead, _passing(call, value, len(lead))) for value in call.args[:2]]
    return [combine(call, operands, lead)]


@rule("aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def grid_sample(call: Call) -> list[Layers]:
    """Sampled at given places; the places themselves must not carry labels."""
    value, grid = call.args[0], call.args[1]
    for layer in (*grid.layers, *(x for x in value.layers if x.axis > 1)):
        call.pin(layer, "positions that a grid samples")
    return [tuple(layer for layer in value.layers if layer.axis <= 1)]
