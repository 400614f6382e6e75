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
    **dict.fromkeys(("any.dim", "any.dims", "all.dim", "all.dims", "nansum.default"), 1),
    **dict.fromkeys(("count_nonzero.default", "count_nonzero.dim_IntList"), 1),
    **dict.fromkeys(("any.default", "all.default", "norm.Scalar"), None),
    # Named, not counted: the axis is a keyword.
    "aminmax.default": 99,
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
    **dict.fromkeys(("cummax.default", "cummin.default", "logcumsumexp.default"), (1, -1)),
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


# Where the axis stands; None of it means all.
_RANKED = {
    **dict.fromkeys(("argmax.default", "argmin.default", "median.dim", "nanmedian.dim", "mode.default"), 1),
    **dict.fromkeys(("kthvalue.default",), 2),
}


@rule(*(f"aten.{name}" for name in _RANKED))
def ranked(call: Call) -> list[Layers]:
    """One position of an axis, by its rank: labels of that axis are pinned, the others carry on."""
    value = call.args[0]
    ndim = len(value.shape)
    place = _RANKED[call.op.target.removeprefix("aten.")]
    whole = call.op.target.startswith("aten.arg")
    axis = call.arg(place, call.kwargs.get("dim", None if whole else -1))
    if axis is None:
        call.pin_all("read as a position")
        return [()] * len(call.shapes)
    for layer in value.over(axis % ndim):
        call.pin(layer, "read as a position" if whole else "ordered along this axis")
    kept = tuple(layer for layer in value.layers if layer.axis != axis % ndim)
    if len(call.shapes[0]) < ndim:
        kept = tuple(layer.on(layer.axis - (layer.axis > axis % ndim)) for layer in kept)
    return [kept] * len(call.shapes)


_READ = ("_local_scalar_dense", "is_nonzero", "equal", "allclose")


@rule(*(f"aten.{name}.default" for name in _READ))
def positions(call: Call) -> list[Layers]:
    """A number that Python reads: every label that enters is pinned."""
    call.pin_all("read as a Python number")
    return [()] * len(call.shapes)
