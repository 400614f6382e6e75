"""How operators run while a model is verified: in float64, without chance, on kept channels.

Norms and reductions over cut axes have no parameter that could be silenced. The reference runs them
on the kept positions, which is what the pruned model does; no tolerance is loosened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.core.channels import Mask, UnitArray, gone
from compressor.core.graph import Restriction
from compressor.core.modes import DispatchMode
from compressor.core.tape import Tape, plain_kernels

__all__ = ["Doubling", "Restricted", "call_in_double", "kept_positions", "plainly", "take"]


class Doubling(DispatchMode):
    """Casts written into a forward (`x.float()`) stay in float64 while a model is verified.

    `watch(operator, result)` is told every result.
    """

    def __init__(self, watch: Callable[[Any, Any], None] | None = None) -> None:
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = self.call(func, args, dict(kwargs or {}))
        if self._watch is not None:
            self._watch(func, result)
        return result

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        if kwargs.get("dtype") in (torch.float32, torch.float16, torch.bfloat16):
            kwargs["dtype"] = torch.float64
        elif kwargs.get("dtype") in (torch.complex64, torch.complex32):
            kwargs["dtype"] = torch.complex128
        return _without_chance(func, args, _exact(func)(*args, **kwargs))


def _exact(func: Any) -> Callable[..., Any]:
    """What runs in place of an operator: of two that compute the same the one that does not cancel."""
    return _distances if str(func) == "aten._euclidean_dist.default" else func


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # ‖a‖² + ‖b‖² − 2 a·b leaves 1e-8 of what should be the zero between a row and itself.
    return torch.ops.aten._cdist_forward.default(a, b, 2.0, 2)  # type: ignore[no-any-return]


_NOISE = (
    "rand",
    "randn",
    "rand_like",
    "randn_like",
    "bernoulli",
    "bernoulli_",
    "uniform_",
    "normal",
    "normal_",
    "exponential_",
    "geometric_",
    "cauchy_",
    "log_normal_",
)
# Drawn around what the first operand says.
_AROUND = ("normal", "poisson")


def _without_chance(func: Any, args: tuple[Any, ...], result: Any) -> Any:
    """Random numbers are the same number everywhere: two models of unequal width draw unequal ones."""
    name = str(func).split(".")[1]
    if name == "native_dropout":
        return args[0].clone(), torch.ones_like(result[1])
    if name in _AROUND and isinstance(args[0], Tensor):
        return args[0].expand(result.shape).clone()
    return result.fill_(0.5) if name in _NOISE else result


class Restricted(Doubling):
    """Runs the operators that read across removed channels on the kept ones."""

    def __init__(
        self,
        restrictions: Sequence[Restriction],
        removed: Mask,
        watch: Callable[[Any, Any], None] | None = None,
    ) -> None:
        super().__init__(watch)
        padded = np.append(removed, False)
        self._wanted = {}
        self._lengths: dict[tuple[str, int], list[dict[int, int]]] = {}
        for restriction in restrictions:
            keeps = tuple(kept_positions(operand, padded) for operand in restriction.operands)
            if any(keeps):
                self._wanted[restriction.target, restriction.call] = (restriction.kind, keeps)
                self._lengths[restriction.target, restriction.call] = [
                    {axis: units.shape[-1] for axis, units in operand.items()}
                    for operand in restriction.operands
                ]
        self._calls: dict[str, int] = {}
        self._misfit = False
        self.used = 0

    def strays_from(self, tape: Tape) -> bool:
        """Whether operators that were to be restricted ran otherwise than on the tape.

        More or less often, or on axes of other lengths: those that batch and channels share.
        """
        on_tape = Counter(op.target for op in tape.ops)
        return self._misfit or any(
            self._calls.get(target, 0) != on_tape[target] for target, _ in self._wanted
        )

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator, restricted where the graph says so."""
        target = str(func)
        number = self._calls[target] = self._calls.get(target, 0) + 1
        wanted = self._wanted.get((target, number))
        if wanted is None:
            return super().call(func, args, kwargs)
        if any(
            arg.shape[axis] != length
            for arg, axes in zip(args, self._lengths[target, number], strict=False)
            for axis, length in axes.items()
        ):
            self._misfit = True
            return super().call(func, args, kwargs)
        kind, keeps = wanted
        self.used += kind != "contraction"
        return _KINDS[kind](func, args, kwargs, keeps)


Keeps = tuple[dict[int, Tensor], ...]


def _reduction(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """Statistics over the kept positions."""
    return func(take(args[0], keeps[0]), *args[1:], **kwargs)


def _contraction(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """Removed positions contribute nothing to a sum of products."""
    silenced = []
    for position, arg in enumerate(args):
        for axis, keep in (keeps[position] if position < len(keeps) else {}).items():
            # Filled, not multiplied by zero: a weight norm of nothing is not a number.
            gone = np.setdiff1d(np.arange(arg.shape[axis]), keep.numpy())
            arg = arg.index_fill(axis, torch.from_numpy(gone).to(arg.device), 0)
        silenced.append(arg)
    return _exact(func)(*silenced, **kwargs)


def _layer_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """Normalised over the kept positions; removed positions of the result are zero."""
    x, normalized, *rest = args
    first = x.dim() - len(normalized)
    small = take(x, keeps[0])
    vectors = {axis - first: keep for axis, keep in keeps[0].items()}
    rest = [take(r, vectors) if isinstance(r, Tensor) else r for r in rest]
    out = func(small, list(small.shape[first:]), *rest, **kwargs)
    return (_put_back(out[0], x.shape, keeps[0]), *out[1:])


def _group_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """The same for runs of channels, which keep equally many each."""
    x, weight, bias, batch, _channels, extent, groups, eps = args
    vectors = {0: keeps[0][1]} if 1 in keeps[0] else {}
    small = take(x, keeps[0])
    weight, bias = (take(v, vectors) if v is not None else None for v in (weight, bias))
    out = func(small, weight, bias, batch, small.shape[1], extent, groups, eps, **kwargs)
    return (_put_back(out[0], x.shape, keeps[0]), *out[1:])


def _batch_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keeps: Keeps) -> Any:
    """Normalised by the statistics of the kept positions; removed ones of the result are zero."""
    out = func(take(args[0], keeps[0]), *args[1:], **kwargs)
    return (_put_back(out[0], args[0].shape, keeps[0]), *out[1:])


_KINDS = {
    "batch_norm": _batch_norm,
    "reduction": _reduction,
    "contraction": _contraction,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}


def take(x: Tensor, keeps: Mapping[int, Tensor]) -> Tensor:
    """The tensor at the kept positions."""
    for axis, keep in keeps.items():
        x = x.index_select(axis, keep.to(x.device))
    return x.contiguous()


def _put_back(small: Tensor, shape: Sequence[int], keeps: Mapping[int, Tensor]) -> Tensor:
    for axis, keep in keeps.items():
        full = list(small.shape)
        full[axis] = shape[axis]
        small = small.new_zeros(full).index_copy(axis, keep.to(small.device), small)
    return small


def kept_positions(axes: Mapping[int, UnitArray], padded: Mask) -> dict[int, Tensor]:
    """The positions that stay along each axis that loses some; `padded` is [n_units + 1]."""
    return {
        axis: torch.from_numpy(np.flatnonzero(~away))
        for axis, units in axes.items()
        if (away := gone(units, padded)).any()
    }


# -- running a model ------------------------------------------------------------------------------


def call_in_double(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The model's result; tensors that its forward makes are float64 where no type is named."""
    with _doubles_by_default():
        return model(*args, **kwargs)


def plainly(model: nn.Module) -> AbstractContextManager[None]:
    """Within, the operators that the model runs are those that were recorded."""
    return plain_kernels(is_recurrent=any(isinstance(m, nn.RNNBase) for m in model.modules()))


@contextmanager
def _doubles_by_default() -> Iterator[None]:
    """Tensors that a forward makes without naming a type are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
