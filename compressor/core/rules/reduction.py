"""Operators that summarise an axis. Over a labelled axis the result depends on what is removed."""

from __future__ import annotations

from compressor.core.rules.call import Call, Layers
from compressor.core.rules.table import rule

__all__: list[str] = []

# Where the reduced axes stand among the arguments; None where all axes are reduced.
_AXES: dict[str, int | None] = {
    **dict.fromkeys(("sum.dim_IntList", "mean.dim", "amax.default", "amin.default"), 1),
    **dict.fromkeys(("var.correction", "std.correction", "var_mean.correction", "std_mean.correction"), 1),
    **dict.fromkeys(("var.dim", "std.dim", "max.dim", "min.dim", "logsumexp.default", "prod.dim_int"), 1),
    **dict.fromkeys(("linalg_vector_norm.default", "norm.ScalarOpt_dim"), 2),
    **dict.fromkeys(("sum.default", "mean.default", "max.default", "min.default", "prod.default"), None),
    "norm.Scalar": None,
}


@rule(*(f"aten.{name}" for name in _AXES))
def reduce(call: Call) -> list[Layers]:
    """Labels of reduced axes end here; verify compares with statistics over the kept channels."""
    value = call.args[0]
    ndim = len(value.shape)
    place = _AXES[call.op.target.removeprefix("aten.")]
    asked = None if place is None else call.arg(place, call.kwargs.get("dim"))
    axes = [a % ndim for a in ([asked] if isinstance(asked, int) else asked or range(ndim))]
    for layer in value.layers:
        if layer.axis in axes:
            call.changes_statistics(layer)
            call.restrict("reduction", {0: axes})
    kept = [layer for layer in value.layers if layer.axis not in axes]
    if len(call.shapes[0]) < ndim:
        kept = [layer.on(layer.axis - sum(a < layer.axis for a in axes)) for layer in kept]
    return [tuple(kept)] * len(call.shapes)


# Where the axis stands and what it is by default.
_ALONG = {
    **dict.fromkeys(("_softmax.default", "_log_softmax.default", "_safe_softmax.default"), (1, -1)),
    **dict.fromkeys(("cumsum.default", "cumprod.default", "sort.default", "argsort.default"), (1, -1)),
    "topk.default": (2, -1),
    "sort.stable": (99, -1),
}


@rule(*(f"aten.{name}" for name in _ALONG))
def along_one_axis(call: Call) -> list[Layers]:
    """Operators that mix or order positions of one axis: its labels are pinned, the others carry on."""
    value = call.args[0]
    position, default = _ALONG[call.op.target.removeprefix("aten.")]
    axis = call.arg(position, call.kwargs.get("dim", default)) % max(len(value.shape), 1)
    for layer in value.over(axis):
        call.pin(layer, "mixed or ordered along this axis")
    kept = value.layers if call.shapes[0] == value.shape else tuple(x for x in value.layers if x.axis != axis)
    return [kept] * len(call.shapes)


@rule("aten._fft_c2c.default", "aten._fft_r2c.default", "aten._fft_c2r.default")
def fourier(call: Call) -> list[Layers]:
    """Fourier transforms of some axes, complex or real; the other axes carry on."""
    value = call.args[0]
    axes = {axis % len(value.shape) for axis in call.args[1]}
    for layer in value.layers:
        if layer.axis in axes:
            call.pin(layer, "mixed by a Fourier transform")
    return [tuple(layer for layer in value.layers if layer.axis not in axes)]


@rule("aten.argmax.default", "aten.argmin.default", "aten._local_scalar_dense.default")
def positions(call: Call) -> list[Layers]:
    """Numbers of positions, or a number Python reads: every label that enters is pinned."""
    call.pin_all("read as a position or a Python number")
    return [()] * len(call.shapes)
