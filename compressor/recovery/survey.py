"""Which layers of a pruned model can be fitted anew, in the order of its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from compressor.core.plan import Plan
from compressor.core.tape import named_tensors
from compressor.errors import RecoveryError
from compressor.observing import Batch, Followed, LayerCall, followed, taps_of
from compressor.observing.batches import output_of

__all__ = ["Survey", "Target", "calls_of", "keep_of", "survey"]


@dataclass(frozen=True)
class Target:
    """A layer to fit: the name of its weight, and where its intercept goes.

    `calls` is how often a forward pass runs it. `intercept` is the name of its bias, or of the running
    mean of the batch norm behind it; None where it has neither.
    """

    weight: str
    calls: int
    intercept: str | None


@dataclass(frozen=True)
class Survey:
    """Targets in order, those of one tuple read the same input and wait for none of the others.

    `left` says of every other layer behind the first cut why it stays as it is.
    """

    steps: tuple[tuple[Target, ...], ...]
    left: Mapping[str, str]


def survey(small: nn.Module, plan: Plan, batch: Batch, *, max_inputs: int) -> Survey:
    """What the forward pass of `small` on one batch shows."""
    seen: list[Followed] = []
    uses = _Uses(small)
    with uses, followed(small, seen.append):
        output_of(small, batch)
    order = _by_weight(seen)
    cut = {(c.tensor, c.axis) for c in plan.cuts if c.role == "reader"}
    first = next((i for i, calls in enumerate(order) if _reads_cut(calls[0].call, cut)), len(order))
    steps: list[tuple[Target, ...]] = []
    left: dict[str, str] = {}
    before: Tensor | None = None
    for calls in order[first:]:
        call = calls[0].call
        reason = uses.reason_to_leave(call, len(calls), max_inputs)
        if reason is not None:
            left[call.weight] = reason
            continue
        target = Target(call.weight, len(calls), uses.intercept(calls))
        if call.input is before and len(calls) == 1 and calls[0].other is None:
            steps[-1] = (*steps[-1], target)
        else:
            steps.append((target,))
        before = call.input
    return Survey(tuple(steps), left)


class _Enough(BaseException):
    """Ends a forward pass of which everything wanted was seen; no forward is to catch it."""


def calls_of(model: nn.Module, batch: Batch, targets: tuple[Target, ...]) -> dict[str, list[Followed]]:
    """The calls of the targets in a forward pass, which ends with the last of them."""
    found: dict[str, list[Followed]] = {target.weight: [] for target in targets}
    wanted = {target.weight: target.calls for target in targets}
    missing = sum(wanted.values())

    def see(one: Followed) -> None:
        nonlocal missing
        name = one.call.weight
        if name not in wanted:
            return
        missing -= 1
        if missing:  # the forward goes on, and may write over what is to be read later
            call = replace(one.call, input=one.call.input.clone(), output=one.call.output.clone())
            other = None if one.other is None else one.other.clone()
            one.call, one.other = call, other
        found[name].append(one)
        if missing == 0:
            raise _Enough

    try:
        with followed(model, see):
            output_of(model, batch)
    except _Enough:
        pass
    return found


def _by_weight(seen: list[Followed]) -> list[list[Followed]]:
    """The calls of each weight, in the order in which weights are called first."""
    order = sorted(seen, key=lambda one: one.number)
    found: dict[str, list[Followed]] = {}
    for one in order:
        found.setdefault(one.call.weight, []).append(one)
    return list(found.values())


def _reads_cut(call: LayerCall, cut: set[tuple[str, int]]) -> bool:
    return (call.weight, call.reader_axis) in cut or (call.groups > 1 and (call.weight, 0) in cut)


class _Uses(TorchFunctionMode):
    """Counts how often each parameter and buffer is handed to a function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._tensors = named_tensors(model)
        self._names = {id(tensor): name for name, tensor in self._tensors.items()}
        self._counts: dict[str, int] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") != "__get__" and _has_tensor(result):
            for leaf in _pytree.tree_leaves((args, kwargs or {})):
                name = self._names.get(id(leaf)) if isinstance(leaf, Tensor) else None
                if name is not None:
                    self._counts[name] = self._counts.get(name, 0) + 1
        return result

    def reason_to_leave(self, call: LayerCall, calls: int, max_inputs: int) -> str | None:
        """Why a layer cannot be fitted, in words, or None."""
        own = self._tensors[call.weight]
        if own.data_ptr() != call.filters.data_ptr():
            return "its weight is computed from others"
        if self._counts.get(call.weight, 0) > calls:
            return "its weight is used in another way, too"
        inputs = call.input.shape[call.channel_dim] // call.groups * taps_of(call)
        if inputs > max_inputs:
            return f"it has {inputs:,} inputs, more than max_inputs = {max_inputs:,}"
        return None

    def intercept(self, calls: list[Followed]) -> str | None:
        """The tensor that takes the intercept of a layer and belongs to nobody else."""
        first = calls[0]
        for tensor in (first.call.bias, first.statistics):
            name = self._names.get(id(tensor)) if tensor is not None else None
            if name is not None and self._counts.get(name, 0) == len(calls):
                return name
        return None


def _has_tensor(result: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in _pytree.tree_leaves(result))


def keep_of(plan: Plan, call: LayerCall, device: torch.device) -> Tensor | None:
    """Which channels of the original layer's output stay, in order; None for all."""
    for cut in plan.cuts:
        if (cut.tensor, cut.axis) == (call.weight, call.writer_axis):
            if len(cut.keep) != call.output.shape[call.channel_dim]:
                raise RecoveryError(
                    f"{call.weight!r}: the plan keeps {len(cut.keep)} of its output channels, and "
                    f"{call.output.shape[call.channel_dim]} came out; the two models are not related by it"
                )
            return torch.tensor(cut.keep, device=device)
    return None
