"""Element-wise operators: labels that meet position by position are one channel."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.core.labels import Layer, Value
from compressor.core.rules.call import MEETS_FIXED, Call, Layers
from compressor.core.rules.meeting import join
from compressor.core.rules.table import rule

__all__ = ["combine", "pointwise"]

# Element-wise in effect, without torch's tag.
_ALSO_POINTWISE = (
    "aten.clone.default",
    "aten._to_copy.default",
    "aten.detach.default",
    "aten.alias.default",
    "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default",
    "aten.contiguous.default",
    "aten.native_dropout.default",
    "aten._prelu_kernel.default",
    "aten.prelu.default",
    "aten.rrelu_with_noise.default",
    "aten.masked_fill.Scalar",
    "aten.masked_fill_.Scalar",
    "aten.masked_fill.Tensor",
    "aten.masked_fill_.Tensor",
    "aten.copy_.default",
    "aten.copy.default",
    "aten.fill_.Scalar",
    "aten.fill_.Tensor",
    "aten.zero_.default",
    "aten.bernoulli_.float",
    "aten.bernoulli.default",
    "aten.uniform_.default",
    "aten.normal_.default",
    "aten.exponential_.default",
    "aten.geometric_.default",
    "aten.cauchy_.default",
    "aten.log_normal_.default",
    "aten.normal.Tensor_float",
    "aten.normal.float_Tensor",
    "aten.normal.Tensor_Tensor",
    "aten.poisson.default",
    "aten.bernoulli.p",
    "aten.bernoulli_.Tensor",
    "aten.hardswish.default",
    "aten.hardswish_.default",
    "aten.gelu_.default",
    "aten.mish_.default",
    "aten.log_sigmoid_forward.default",
    "aten.threshold_.default",
    "aten.abs_.default",
    "aten.polar.default",
    "aten.complex.default",
    "aten.real.default",
    "aten.imag.default",
    "aten._conj.default",
    "aten._conj_physical.default",
    "aten._neg_view.default",
    "aten.resolve_conj.default",
    "aten.resolve_neg.default",
    "aten.nan_to_num.default",
    "aten.nan_to_num_.default",
    "aten.floor_divide.default",
)


@rule(*_ALSO_POINTWISE)
def pointwise(call: Call) -> list[Layers]:
    """Any element-wise operator: operands are broadcast, labels that meet are merged."""
    operands = list(call.values())
    if len(operands) == 1 and operands[0].shape == call.shapes[0]:
        return [operands[0].layers] * len(call.shapes)
    return [combine(call, operands, call.shapes[0])] * len(call.shapes)


def combine(call: Call, operands: Sequence[Value], shape: tuple[int, ...]) -> Layers:
    """Merge the labels of operands broadcast to `shape`; the layers of the result."""
    result: list[Layer] = []
    for axis in range(len(shape)):
        if shape[axis] > 1:
            result.extend(_combine_axis(call, operands, axis, len(shape)))
    return tuple(result)


def _combine_axis(call: Call, operands: Sequence[Value], axis: int, ndim: int) -> list[Layer]:
    """One axis of the result: operands of length one there are broadcast and say nothing."""
    meeting: list[Layers] = []
    opaque = False
    for value in operands:
        own = axis - (ndim - len(value.shape))
        if own < 0 or value.shape[own] == 1:
            continue
        layers = value.over(own)
        meeting.append(layers)
        opaque = opaque or not layers
    if opaque:
        for layers in meeting:
            for layer in layers:
                call.pin(layer, MEETS_FIXED)
        # All of the axis stays, which an axis without labels says, too: factors that are pinned would only
        # keep it from meeting the same axis without them (a sampler whose steps begin with the last image).
        return []
    joined: Layers = ()
    for layers in meeting:
        joined = join(call, joined, layers)
    return [layer.on(axis) for layer in joined]
