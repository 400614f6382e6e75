"""Proof that a pruned model computes what its plan says.

The reference is the original model in which every *reader* of a removed channel is silenced: its
input slices are zero. (Zeroing writers would not be exact: sigmoid(0) is not 0.) Both models are
copied to float64 and given the same scrambled weights first, because a freshly initialised network
hides wrong cuts behind constant BatchNorm vectors. Norms and reductions over cut axes are run on the
kept channels in the reference: the tolerance is never loosened.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.core.capture import capture
from compressor.core.graph import Graph, Restriction, UnitArray
from compressor.core.plan import Cut, Plan
from compressor.core.surgery import apply, check_plan, cut_copy, signature_of
from compressor.core.tape import named_tensors, output_tensors, undisturbed
from compressor.errors import VerifyError

__all__ = ["TOLERANCE", "Report", "verify"]

TOLERANCE = 1e-9
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Report:
    """The outcome of a successful verification.

    `error` is the largest difference between the outputs relative to the largest output.
    `statistics` counts operators (norms, reductions) whose statistics now run over fewer channels, so
    that kept channels see other values than in the unpruned model.
    """

    error: float
    outputs: int
    statistics: int

    def __str__(self) -> str:
        text = f"verified: relative error {self.error:.1e} over {self.outputs} output(s) in float64"
        if self.statistics:
            text += f"; {self.statistics} operator(s) take statistics over the kept channels only"
        return text


def verify(
    model: nn.Module,
    small: nn.Module,
    plan: Plan,
    *args: Any,
    graph: Graph | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    **kwargs: Any,
) -> Report:
    """A report that `small` is `model` cut as `plan` says, and computes what it should.

    `args` and `kwargs` are example inputs. `graph` saves capturing the model again. Weights of
    `small` may have been trained since: what is proved is its structure; the cut itself is proved on
    scrambled weights. Both models are unchanged afterwards.

    Raises VerifyError with the first diverging module, or PlanMismatchError.
    """
    check_plan(model, plan)
    mismatch = plan.result.first_mismatch(signature_of(small))
    if mismatch is not None:
        raise VerifyError(f"the pruned model is not what the plan makes of the original: {mismatch}")
    if graph is None or graph.model is not model:
        graph = capture(model, *args, **kwargs)
    removed = removed_units(graph, plan)
    with torch.random.fork_rng(devices=[]):
        generator = torch.Generator().manual_seed(seed)
        full = _scrambled(model, generator)
    wide = apply(full, replace(plan, signature=signature_of(full)))
    double = _with_weights(small, wide)
    _silence_readers(full, plan.cuts)
    args, kwargs = _as_double((args, kwargs))
    reference = _Restricted(graph.restrictions, removed)
    mine, yours = _copies(args, kwargs), _copies(args, kwargs)
    with undisturbed(full, training=False), torch.no_grad(), reference:
        expected = _run(full, *mine, "the original model")
    with undisturbed(double, training=False), torch.no_grad(), _Doubling():
        found = _run(double, *yours, "the pruned model")
    error = _compare(expected, found)
    if not error <= tolerance:
        where = _first_divergence(graph, removed, full, double, args, kwargs, tolerance)
        raise VerifyError(
            f"the pruned model differs from the plan by {error:.2e} (relative, float64; allowed "
            f"{tolerance:.0e}); {where}"
        )
    return Report(error, len(expected), reference.used)


def removed_units(graph: Graph, plan: Plan) -> Mask:
    """Which units [n_units] the plan removes; raises VerifyError where it splits a unit.

    This is the structural half of the proof: every site of a unit goes, or none.
    """
    removed = np.zeros(graph.n_units, dtype=bool)
    cuts = {(cut.tensor, cut.axis): cut for cut in plan.cuts}
    flags = []
    for axis in graph.axes:
        gone = np.zeros(axis.size, dtype=bool)
        cut = cuts.pop((axis.tensor, axis.axis), None)
        if cut is not None:
            gone[list(cut.removed)] = True
        if (axis.units[gone] < 0).any():
            index = int(np.flatnonzero(gone & (axis.units < 0))[0])
            why = "; ".join(graph.reasons.get((axis.tensor, axis.axis), ("no reason known",)))
            raise VerifyError(f"the plan cuts {axis.tensor!r} axis {axis.axis} at {index}, pinned: {why}")
        removed[axis.units[gone]] = True
        flags.append(gone)
    if cuts:
        tensor, number = next(iter(cuts))
        raise VerifyError(f"the plan cuts {tensor!r} axis {number}, which the graph does not know")
    padded = np.append(removed, False)
    for axis, gone in zip(graph.axes, flags, strict=True):
        wrong = padded[axis.units] & ~gone
        if wrong.any():
            raise VerifyError(
                f"the plan keeps {axis.tensor!r} axis {axis.axis} index {int(np.flatnonzero(wrong)[0])} "
                f"and removes what depends on it elsewhere"
            )
    return removed


# -- two models in float64 -----------------------------------------------------------------------


def _scrambled(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A float64 copy with every channel different from every other."""

    def convert(tensor: Tensor, _cuts: tuple[Cut, ...]) -> Tensor:
        data = tensor.detach()
        if not data.is_floating_point():
            return data.clone()
        data = data.to(torch.float64, copy=True)
        factor = torch.rand(data.shape, generator=generator, dtype=torch.float64).to(data.device)
        data *= 0.5 + factor
        if data.numel() and not bool((data >= 0).all() and (data > 0).any()):
            noise = torch.randn(data.shape, generator=generator, dtype=torch.float64).to(data.device)
            scale = float(data.square().mean().sqrt()) or 1.0
            data += 0.2 * scale * noise
        return data

    return cut_copy(model, (), convert)


def _with_weights(small: nn.Module, source: nn.Module) -> nn.Module:
    """A copy of `small` as a module, holding the tensors of `source`."""
    tensors = named_tensors(source)
    by_id = {id(tensor): tensors[name] for name, tensor in named_tensors(small).items()}

    def convert(tensor: Tensor, _cuts: tuple[Cut, ...]) -> Tensor:
        return by_id[id(tensor)].detach()

    return cut_copy(small, (), convert)


def _silence_readers(model: nn.Module, cuts: Sequence[Cut]) -> None:
    """Zero the input slices that consume removed channels."""
    named = named_tensors(model)
    with torch.no_grad():
        for cut in cuts:
            if cut.role == "reader":
                tensor = named[cut.tensor]
                gone = torch.tensor(cut.removed)
                if cut.blocks == 1:
                    tensor.index_fill_(cut.axis, gone.to(tensor.device), 0)
                    continue
                width = cut.size // cut.blocks
                for block, rows in enumerate(tensor.data.unflatten(0, (cut.blocks, -1))):
                    own = gone[(gone >= block * width) & (gone < (block + 1) * width)] - block * width
                    rows.index_fill_(cut.axis, own.to(tensor.device), 0)


def _as_double(tree: Any) -> Any:
    """Floating inputs in float64; a constant one is replaced by noise, which tells channels apart."""
    generator = torch.Generator().manual_seed(1)

    def convert(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        x = x.detach().to(torch.float64)
        if x.numel() > 1 and bool((x == x.flatten()[0]).all()):
            x = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        return x

    return _pytree.tree_map_only(Tensor, convert, tree)


@contextmanager
def _doubles_by_default() -> Iterator[None]:
    """Tensors that a forward makes without naming a type are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _copies(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The inputs again, for a forward that writes into them."""
    copies: tuple[Sequence[Any], Mapping[str, Any]]
    copies = _pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
    return copies


def _call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The model's result; tensors that its forward makes are float64 where no type is named."""
    with _doubles_by_default():
        return model(*args, **kwargs)


def _run(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], who: str) -> list[Tensor]:
    try:
        result = _call(model, args, kwargs)
        return [t for t in output_tensors(result) if t.is_floating_point() or t.is_complex()]
    except Exception as error:
        raise VerifyError(
            f"{who} cannot run on the example inputs in float64: {type(error).__name__}: {error}"
        ) from error


def _compare(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference relative to the largest expected value; infinite where shapes differ."""
    if len(expected) != len(found):
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape or not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
            return float("inf")
        if a.numel():
            scale = float(a.abs().max()) or 1.0
            worst = max(worst, float((a - b).abs().max()) / scale)
    return worst


# -- operators of the reference ------------------------------------------------------------------


class _Doubling(TorchDispatchMode):
    """Casts written into a forward (`x.float()`) stay in float64 while a model is verified."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.call(func, args, dict(kwargs or {}))

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        if kwargs.get("dtype") in (torch.float32, torch.float16, torch.bfloat16):
            kwargs["dtype"] = torch.float64
        return _without_chance(func, args, func(*args, **kwargs))


_NOISE = ("rand", "randn", "rand_like", "randn_like", "bernoulli", "bernoulli_", "uniform_", "normal_")


def _without_chance(func: Any, args: tuple[Any, ...], result: Any) -> Any:
    """Random numbers are the same number everywhere: two models of unequal width draw unequal ones."""
    name = str(func).split(".")[1]
    if name == "native_dropout":
        return args[0].clone(), torch.ones_like(result[1])
    return result.fill_(0.5) if name in _NOISE else result


class _Restricted(_Doubling):
    """Runs the operators that read across removed channels on the kept ones."""

    def __init__(self, restrictions: Sequence[Restriction], removed: Mask) -> None:
        super().__init__()
        padded = np.append(removed, False)
        self._wanted = {}
        for restriction in restrictions:
            keeps = tuple(
                {axis: torch.from_numpy(np.flatnonzero(~padded[units])) for axis, units in operand.items()
                 if padded[units].any()}
                for operand in restriction.operands
            )
            if any(keeps):
                self._wanted[restriction.target, restriction.call] = (restriction.kind, keeps)
        self._calls: dict[str, int] = {}
        self.used = 0

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator, restricted where the graph says so."""
        target = str(func)
        number = self._calls[target] = self._calls.get(target, 0) + 1
        wanted = self._wanted.get((target, number))
        if wanted is None:
            return super().call(func, args, kwargs)
        kind, keeps = wanted
        self.used += kind != "contraction"
        return _KINDS[kind](func, args, kwargs, keeps)


Keeps = tuple[dict[int, Tensor], ...]


def _reduction(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """Statistics over the kept positions."""
    return func(_take(args[0], keeps[0]), *args[1:], **kwargs)


def _contraction(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """Removed positions contribute nothing to a sum of products."""
    silenced = []
    for arg, mine in itertools.zip_longest(args, keeps, fillvalue={}):
        for axis, keep in mine.items():
            # Filled, not multiplied by zero: a weight norm of nothing is not a number.
            gone = np.setdiff1d(np.arange(arg.shape[axis]), keep.numpy())
            arg = arg.index_fill(axis, torch.from_numpy(gone).to(arg.device), 0)
        silenced.append(arg)
    return func(*silenced, **kwargs)


def _layer_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """Normalised over the kept positions; removed positions of the result are zero."""
    x, normalized, *rest = args
    first = x.dim() - len(normalized)
    small = _take(x, keeps[0])
    vectors = {axis - first: keep for axis, keep in keeps[0].items()}
    rest = [_take(r, vectors) if isinstance(r, Tensor) else r for r in rest]
    out = func(small, list(small.shape[first:]), *rest, **kwargs)
    return (_put_back(out[0], x.shape, keeps[0]), *out[1:])


def _group_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """The same for runs of channels, which keep equally many each."""
    x, weight, bias, batch, channels, extent, groups, eps = args
    vectors = {0: keep for keep in keeps[0].values()}
    small = _take(x, keeps[0])
    weight, bias = (_take(v, vectors) if v is not None else None for v in (weight, bias))
    out = func(small, weight, bias, batch, small.shape[1], extent, groups, eps, **kwargs)
    return (_put_back(out[0], x.shape, keeps[0]), *out[1:])


def _batch_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """Normalised by the statistics of the kept positions; removed ones of the result are zero."""
    out = func(_take(args[0], keeps[0]), *args[1:], **kwargs)
    return (_put_back(out[0], args[0].shape, keeps[0]), *out[1:])


_KINDS = {
    "batch_norm": _batch_norm,
    "reduction": _reduction,
    "contraction": _contraction,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}


def _take(x: Tensor, keeps: Mapping[int, Tensor]) -> Tensor:
    for axis, keep in keeps.items():
        x = x.index_select(axis, keep.to(x.device))
    return x.contiguous()


def _put_back(small: Tensor, shape: Sequence[int], keeps: Mapping[int, Tensor]) -> Tensor:
    for axis, keep in keeps.items():
        full = list(small.shape)
        full[axis] = shape[axis]
        small = small.new_zeros(full).index_copy(axis, keep.to(small.device), small)
    return small


# -- finding the fault ---------------------------------------------------------------------------


class _Watching(_Doubling):
    """Keeps what every operator computed."""

    def __init__(self, inner: _Restricted | None) -> None:
        super().__init__()
        self._inner = inner
        self.results: list[tuple[str, Any]] = []

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator and keep a copy of its first result."""
        run = super().call if self._inner is None else self._inner.call
        out = run(func, args, kwargs)
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        self.results.append((str(func), first.clone() if isinstance(first, Tensor) else None))
        return out


def _first_divergence(
    graph: Graph,
    removed: Mask,
    full: nn.Module,
    small: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tolerance: float,
) -> str:
    """The first operator whose result is not the reference's kept channels, in words."""
    padded = np.append(removed, False)
    runs = []
    for model, inner in ((full, _Restricted(graph.restrictions, removed)), (small, None)):
        watching = _Watching(inner)
        own_args, own_kwargs = _copies(args, kwargs)
        try:
            with undisturbed(model, training=False), torch.no_grad(), watching:
                _call(model, own_args, own_kwargs)
        except Exception as error:
            return f"it stops with {type(error).__name__}: {error}"
        runs.append(watching.results)
    ops = graph.tape.ops
    for op, (name, a), (other, b) in zip(ops, *runs, strict=False):
        where = f"module {op.module!r} (operator {op.target})" if op.module else f"operator {op.target}"
        if name != op.target or other != op.target:
            return f"the first operator that does not follow the recording is in {where}"
        out = op.outputs[0]
        if a is None or b is None or out is None or not a.is_floating_point():
            continue
        kept = _kept(graph.axes_of(out), padded)
        if _compare([_take(a, kept)], [b]) > tolerance:
            return f"the first module that diverges is {where}"
    return "no single operator diverges before the output"


def _kept(axes: Mapping[int, UnitArray], padded: Mask) -> dict[int, Tensor]:
    return {
        axis: torch.from_numpy(np.flatnonzero(~padded[units]))
        for axis, units in axes.items()
        if padded[units].any()
    }

