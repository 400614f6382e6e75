"""Operators on the spatial axes: pooling and interpolation. Channels pass through."""

from __future__ import annotations

from compressor.core.rules.call import Call, Layers
from compressor.core.rules.table import rule

__all__: list[str] = []

_NAMES = {
    1: ("max_pool1d", "avg_pool1d", "adaptive_max_pool1d", "upsample_nearest1d", "upsample_linear1d")
    + ("_upsample_nearest_exact1d", "adaptive_avg_pool1d", "max_pool1d_with_indices"),
    2: ("max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d")
    + ("_upsample_nearest_exact2d", "_adaptive_avg_pool2d", "max_pool2d_with_indices", "max_unpool2d")
    + ("_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa", "fractional_max_pool2d"),
    3: ("max_pool3d", "avg_pool3d", "adaptive_max_pool3d", "upsample_nearest3d", "upsample_trilinear3d")
    + ("_upsample_nearest_exact3d", "_adaptive_avg_pool3d", "max_pool3d_with_indices", "max_unpool3d")
    + ("fractional_max_pool3d",),
}
_SPATIAL_AXES = {name: count for count, names in _NAMES.items() for name in names}


@rule(*(f"aten.{name}.{overload}" for name in _SPATIAL_AXES for overload in ("default", "vec")))
def spatial(call: Call) -> list[Layers]:
    """Labels of channels pass; labels along spatial axes are pinned."""
    value = call.args[0]
    first = len(value.shape) - _SPATIAL_AXES[call.op.target.split(".")[1]]
    for layer in value.layers:
        if layer.axis >= first:
            call.pin(layer, "positions that pooling or interpolation mixes")
    return [tuple(layer for layer in value.layers if layer.axis < first)] * len(call.shapes)


@rule("aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def grid_sample(call: Call) -> list[Layers]:
    """Sampled at given places; the places themselves must not carry labels."""
    value, grid = call.args[0], call.args[1]
    for layer in (*grid.layers, *(x for x in value.layers if x.axis > 1)):
        call.pin(layer, "positions that a grid samples")
    return [tuple(layer for layer in value.layers if layer.axis <= 1)]
