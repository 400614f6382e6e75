"""What a pruned network must compute, worked out from the plan alone: an oracle beside `verify`.

It shares no code with the library and reads nothing but the plan's cuts. In the unpruned network
every removed slice, of writers and readers alike, is set to NaN, which stands for *missing*. While
it runs, sums and products skip what is missing, norms and softmaxes take their statistics over what
is there, and a result of nothing but missing values is missing. Everything else is element-wise or
moves values about, and floating-point arithmetic passes NaN on by itself. So each channel that the
plan removes is gone wherever it would have gone, whatever the operators in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.zoo import Inputs, outputs

__all__ = ["CannotJudge", "InDouble", "error_against_reference", "expected_outputs", "relative_error"]

NAN = float("nan")


class Cuts(Protocol):
    """All that is read of a plan: `cuts` with tensor, axis, size, removed and blocks."""

    @property
    def cuts(self) -> Sequence[Any]:
        """What is removed."""


class CannotJudge(Exception):
    """The oracle has no opinion on this network; the text says why."""


def error_against_reference(
    model: nn.Module, small: nn.Module, plan: Cuts, inputs: Inputs, *, auxiliary: bool = False
) -> float:
    """The largest difference of any output, relative to the largest value of that output.

    `auxiliary` networks also return their auxiliary heads; `model` is as it was afterwards. Raises
    CannotJudge where missing values reach an output.
    """
    expected = expected_outputs(model, plan, inputs, auxiliary=auxiliary)
    with torch.no_grad(), plain_kernels(), InDouble():
        found = _outputs(small, inputs, auxiliary)
    error = relative_error(expected, found)
    if any(bool(leaf.isnan().any()) for leaf in expected) and error == float("inf"):
        raise CannotJudge("missing values reach the output: an operator without a rule, or a wrong cut")
    return error


def expected_outputs(
    model: nn.Module, plan: Cuts, inputs: Inputs, *, auxiliary: bool = False
) -> list[Tensor]:
    """The outputs of the unpruned network without what the plan removes."""
    with torch.no_grad(), plain_kernels(), _missing(model, plan), Skipping():
        return _outputs(model, inputs, auxiliary)


def relative_error(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference of a pair of tensors, relative to the largest value expected of it."""
    if [t.shape for t in expected] != [t.shape for t in found]:
        return float("inf")
    errors = [0.0]
    for a, b in zip(expected, found, strict=True):
        finite = torch.isfinite(a)
        if not torch.equal(a[~finite], b[~finite]) or not bool(torch.isfinite(b[finite]).all()):
            return float("inf")  # infinities are masks and have to agree
        difference = (a[finite] - b[finite]).abs()
        if difference.numel():
            errors.append(float(difference.max()) / max(float(a[finite].abs().max()), 1e-30))
    return max(errors)


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Fused kernels fall apart into operators; what asks for the default type gets float64."""
    fast, default = torch.backends.mha.get_fastpath_enabled(), torch.get_default_dtype()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.set_default_dtype(torch.float64)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_default_dtype(default)


def _outputs(model: nn.Module, inputs: Inputs, auxiliary: bool) -> list[Tensor]:
    """The outputs in eval mode; `auxiliary` networks show their heads when they think they train."""
    model.eval()
    model.training = auxiliary  # of the outermost module only: dropout and BatchNorm stay in eval
    try:
        return outputs(inputs.call(model))
    finally:
        model.training = False


@contextmanager
def _missing(model: nn.Module, plan: Cuts) -> Iterator[None]:
    """Every removed slice is NaN, undone at the end."""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    undo: list[tuple[Tensor, Tensor]] = []
    try:
        for cut in plan.cuts:
            tensor = tensors[cut.tensor].data
            if not tensor.is_floating_point():
                continue  # a table of indices: what it points at is missing by itself
            undo.append((tensor, tensor.clone()))
            for part, gone in _slices(tensor, cut):
                part.index_fill_(cut.axis, gone, NAN)
        yield
    finally:
        for tensor, old in reversed(undo):
            tensor.copy_(old)


def _slices(weight: Tensor, cut: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Runs of rows and what each loses; a grouped convolution has a run for each group."""
    rows, width = weight.shape[0] // cut.blocks, cut.size // cut.blocks
    for block in range(cut.blocks):
        lost = [i - block * width for i in cut.removed if i // width == block]
        part = weight[block * rows : (block + 1) * rows] if cut.blocks > 1 else weight
        if lost:
            yield part, torch.tensor(lost)


# -- arithmetic that skips what is missing ---------------------------------------------------------


class InDouble(TorchDispatchMode):
    """Within, what a network asks for in float32 is float64: casts inside norms, masks, tables."""

    def __init__(self) -> None:
        """Nothing is kept between operators."""
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` with float64 in place of lower precision."""
        args, kwargs = _doubled(args), _doubled(kwargs or {})
        return self.run(func, args, kwargs)

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator as it is."""
        return func(*args, **kwargs)


class Skipping(InDouble):
    """Within, operators that combine values skip those that are NaN."""

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator by its rule if anything is missing."""
        rule = _RULES.get(func.overloadpacket.__name__)
        if rule is None or not any(_holes(leaf) for leaf in _pytree.tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        return rule(func, *args, **kwargs)


def _doubled(value: Any) -> Any:
    low = (torch.float32, torch.float16, torch.bfloat16)
    return _pytree.tree_map(
        lambda leaf: torch.float64 if isinstance(leaf, torch.dtype) and leaf in low else leaf, value
    )


def _holes(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and bool(leaf.isnan().any())


def _there(x: Tensor) -> Tensor:
    return x.isnan().logical_not().to(torch.float64)


def _filled(x: Tensor, value: float = 0.0) -> Tensor:
    return x.masked_fill(x.isnan(), value)


def _only(x: Tensor, there: Tensor) -> Tensor:
    """`x`, missing where nothing is there."""
    return x.masked_fill(there <= 0, NAN)


def _product(func: Any, a: Tensor, b: Tensor) -> Tensor:
    return _only(func(_filled(a), _filled(b)), func(_there(a), _there(b)))


def _added_product(func: Any, bias: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
    packets = {"addmm": torch.mm, "baddbmm": torch.bmm, "addmv": torch.mv}
    return beta * bias + alpha * _product(packets[func.overloadpacket.__name__], a, b)


def _convolution(func: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    transposed, groups = rest[3], rest[5]
    out = func(_filled(x), _filled(weight), None, *rest)
    x_C = _there(x).amax(dim=(0, *range(2, x.dim()))).reshape(groups, -1)
    if transposed:  # weight [in, out / groups, ...]
        w = _there(weight).flatten(2).amax(-1).reshape(groups, -1, weight.shape[1])
        out_there = torch.einsum("gi,gio->go", x_C, w)
    else:  # weight [out, in / groups, ...]
        w = _there(weight).flatten(2).amax(-1).reshape(groups, -1, weight.shape[1])
        out_there = torch.einsum("gi,goi->go", x_C, w)
    shape = (1, -1, *[1] * (out.dim() - 2))
    out = _only(out, out_there.reshape(shape))
    return out if bias is None else out + bias.reshape(shape)


def _sum(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    there = func(_there(x), *args, **{k: v for k, v in kwargs.items() if k != "dtype"})
    return _only(func(_filled(x), *args, **kwargs), there)


def _mean(func: Any, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return torch.nanmean(x, dim, keepdim) if dim not in (None, []) else torch.nanmean(x)


def _moments(x: Tensor, dim: Any, correction: float) -> tuple[Tensor, Tensor]:
    """Variance and mean of what is there, with the axes kept."""
    axes = tuple(range(x.dim())) if dim in (None, []) else dim
    count = _there(x).sum(axes, keepdim=True)
    mean = _only(_filled(x).sum(axes, keepdim=True) / count.clamp(min=1), count)
    var = (_filled(x - mean)).square().sum(axes, keepdim=True) / (count - correction)
    return _only(var, count), mean


def _variance(func: Any, x: Tensor, dim: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Any:
    var, mean = _moments(x, dim, 1 if correction is None else correction)
    axes = tuple(range(x.dim())) if dim in (None, []) else [d % x.dim() for d in dim]
    squeezed = [t if keepdim else t.squeeze(tuple(axes)) for t in (var, mean)]
    name = func.overloadpacket.__name__
    spread = squeezed[0].sqrt() if name.startswith("std") else squeezed[0]
    return (spread, squeezed[1]) if name.endswith("_mean") else spread


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _layer_norm(func: Any, x: Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    var, mean = _moments(x, tuple(range(-len(shape), 0)), 0)
    return _affine((x - mean) / (var + eps).sqrt(), weight, bias), mean, (var + eps).rsqrt()


def _group_norm(
    func: Any, x: Tensor, weight: Any, bias: Any, n: int, c: int, hw: int, g: int, eps: float
) -> Any:
    grouped = x.reshape(n, g, -1)
    var, mean = _moments(grouped, (2,), 0)
    out = ((grouped - mean) / (var + eps).sqrt()).reshape(x.shape)
    vector = (1, -1, *[1] * (x.dim() - 2))
    weight, bias = (None if v is None else v.reshape(vector) for v in (weight, bias))
    return _affine(out, weight, bias), mean.reshape(n, g), (var + eps).rsqrt().reshape(n, g)


def _batch_norm(func: Any, x: Tensor, weight: Any, bias: Any, *rest: Any) -> Any:
    """Statistics of the batch itself (instance norms, standardised weights) skip what is missing."""
    flags = [value for value in rest if isinstance(value, bool)]
    if not flags or not flags[0]:
        return func(x, weight, bias, *rest)
    eps = rest[-1]
    var, mean = _moments(x, (0, *range(2, x.dim())), 0)
    vector = (1, -1, *[1] * (x.dim() - 2))
    weight, bias = (None if v is None else v.reshape(vector) for v in (weight, bias))
    out = _affine((x - mean) / (var + eps).sqrt(), weight, bias)
    return out, mean.flatten(), (var + eps).rsqrt().flatten()


def _rms_norm(func: Any, x: Tensor, shape: Any, weight: Any, eps: float | None) -> Any:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    axes = tuple(range(-len(shape), 0))
    scale = (torch.nanmean(x.square(), axes, True) + eps).rsqrt()
    return _affine(x * scale, weight, None), scale


def _ignoring(value: float) -> Callable[..., Any]:
    """A rule that puts a value that has no say in place of what is missing."""

    def rule(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = func(_filled(x, value), *args, **kwargs)

        def mask(leaf: Tensor) -> Tensor:
            return leaf.masked_fill(leaf == value, NAN) if leaf.is_floating_point() else leaf

        return tuple(map(mask, out)) if isinstance(out, tuple) else mask(out)

    return rule


def _softmax(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    return func(_filled(x, -float("inf")), *args, **kwargs).masked_fill(x.isnan(), NAN)


def _cumulative(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    return func(_filled(x), *args, **kwargs).masked_fill(x.isnan(), NAN)


def _vector_norm(
    func: Any, x: Tensor, order: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    there = _there(x).sum(dim, keepdim=keepdim) if dim not in (None, []) else _there(x).sum()
    return _only(torch.linalg.vector_norm(_filled(x), order, dim, keepdim), there)


def _weight_norm(func: Any, v: Tensor, g: Tensor, dim: int = 0) -> Any:
    _, norms = func(_filled(v), _filled(g), dim)
    return (v * (g / norms)), norms


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _added_product),
    "convolution": _convolution,
    "sum": _sum,
    "mean": _mean,
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _variance),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit"), _batch_norm),
    "_fused_rms_norm": _rms_norm,
    **dict.fromkeys(("max", "amax", "logsumexp"), _ignoring(-float("inf"))),
    **dict.fromkeys(("min", "amin"), _ignoring(float("inf"))),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _softmax),
    "cumsum": _cumulative,
    **dict.fromkeys(("linalg_vector_norm", "norm"), _vector_norm),
    "_weight_norm_interface": _weight_norm,
}
