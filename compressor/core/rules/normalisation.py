"""Normalisation layers. Batch norm sees one channel at a time; the others mix channels' statistics."""

from __future__ import annotations

from typing import Any

from compressor.core.labels import Value
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.contraction import carry
from compressor.core.rules.elementwise import combine
from compressor.core.rules.table import rule

__all__: list[str] = []


def _with_vectors(call: Call, vectors: tuple[Any, ...]) -> Layers:
    """The operand merged with its per-channel vectors (None where the layer has none)."""
    x = call.args[0]
    trail = (1,) * (len(x.shape) - 2)
    columns = [Value((1, *v.shape, *trail), carry(v, 0, 1)) for v in vectors if isinstance(v, Value)]
    return combine(call, (x, *columns), x.shape)


@rule(
    "aten.native_batch_norm.default",
    "aten._native_batch_norm_legit_no_training.default",
    "aten._native_batch_norm_legit.default",
    "aten._native_batch_norm_legit.no_stats",
    "aten.cudnn_batch_norm.default",
    "aten.miopen_batch_norm.default",
    "aten.batch_norm.default",
)
def batch_norm(call: Call) -> list[Layers]:
    """The four vectors are merged with the channel axis."""
    bare = call.op.target.endswith("no_stats")
    if bare or (isinstance(call.arg(5), bool) and call.args[5]):
        _own_statistics(call)
    out = _with_vectors(call, call.args[1 : 3 if bare else 5])
    own = tuple(layer.on(0) for layer in out if layer.axis == 1)
    # One mean and one variance for each channel, or none at all.
    return [out, *(own if shape == call.shapes[0][1:2] else () for shape in call.shapes[1:])]


def _own_statistics(call: Call) -> None:
    """Statistics of the operand itself run over all its axes but the channels'."""
    axes = {layer.axis for layer in call.args[0].layers if layer.axis != 1}
    for layer in call.args[0].layers:
        if layer.axis in axes:
            call.changes_statistics(layer)
    if axes:
        call.restrict("batch_norm", {0: axes})


@rule("aten.native_layer_norm.default", "aten._fused_rms_norm.default", "aten.rms_norm.default")
def layer_norm(call: Call) -> list[Layers]:
    """Statistics over the last axes: removing a channel changes what the others see."""
    x, normalized = call.args[0], call.args[1]
    first = len(x.shape) - len(normalized)
    operands = [x, *(v for v in call.args[2:4] if isinstance(v, Value))]
    mixed = [layer for layer in x.layers if layer.axis >= first]
    for layer in mixed:
        call.changes_statistics(layer)
    if mixed:
        call.restrict("layer_norm", {0: [layer.axis for layer in mixed]})
    return [combine(call, operands, x.shape), *([()] * (len(call.shapes) - 1))]


@rule("aten.native_group_norm.default")
def group_norm(call: Call) -> list[Layers]:
    """Statistics over runs of channels, which stay of equal size; one channel a run has none to share."""
    x, groups = call.args[0], int(call.args[6])
    out = _with_vectors(call, call.args[1:3])
    for layer in x.layers:
        if layer.axis > 1:
            call.pin(layer, "positions that share their statistics")
    for layer in x.over(1):
        option = call.choose("whole", "pin") if groups == layer.ids.size else call.choose("equal", "pin")
        if option == "pin":
            call.pin(layer, "the number of normalisation groups is written into forward")
        elif option == "equal":
            call.equal(layer.ids.reshape(groups, -1), "groups of a group norm stay of equal size")
            call.changes_statistics(layer)
            call.restrict("group_norm", {0: [1]})
    own = tuple(layer for layer in out if layer.axis == 1)
    return [out, *(own if shape[1] == call.shapes[0][1] else () for shape in call.shapes[1:])]


@rule("aten._weight_norm_interface.default")
def weight_norm(call: Call) -> list[Layers]:
    """W = g·v/‖v‖ for each position of `dim`: v's other axes enter the norm."""
    direction, scale, axis = call.args[0], call.args[1], call.arg(2, 0)
    mixed = [layer for layer in direction.layers if layer.axis != axis % len(direction.shape)]
    for layer in mixed:
        call.changes_statistics(layer)
    if mixed:
        # Inputs are silenced in v itself; the outputs of a transposed convolution are not.
        call.restrict("contraction", {0: [layer.axis for layer in mixed]})
    out = combine(call, (direction, scale), direction.shape)
    return [out, *(tuple(x for x in out if shape[x.axis] > 1) for shape in call.shapes[1:])]
