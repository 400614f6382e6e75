"""Tensors that appear from nowhere: uniform ones take the labels they meet, others have none."""

from __future__ import annotations

from compressor.core.rules.call import Call, Layers
from compressor.core.rules.table import rule
from compressor.core.rules.viewing import uniform_axes

__all__: list[str] = []

_CONSTANTS = (
    "zeros",
    "ones",
    "full",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "rand",
    "randn",
)
_EMPTY = (
    "aten.empty.memory_format",
    "aten.empty_strided.default",
    "aten.new_empty_strided.default",
    "aten.empty_permuted.default",
)
_LIKE = ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like")
_OPAQUE = ("arange.default", "arange.start", "arange.start_step", "linspace.default", "eye.default")


@rule(*(f"aten.{name}.default" for name in _CONSTANTS), "aten.normal.float_float", *_EMPTY)
def uniform(call: Call) -> list[Layers]:
    """A constant (or noise that knows no order) of a given shape: every axis takes what it meets."""
    return [uniform_axes(call, (1,) * len(call.shapes[0]))]


@rule(*(f"aten.{name}.default" for name in _LIKE))
def like(call: Call) -> list[Layers]:
    """A constant with another tensor's shape: it follows that tensor's labels."""
    return [call.args[0].layers]


@rule(*(f"aten.{name}" for name in _OPAQUE), "aten.scalar_tensor.default", "aten.randperm.default")
def opaque(call: Call) -> list[Layers]:
    """Values that differ along every axis and follow no label."""
    return [()] * len(call.shapes)
