"""Where a layer's output is added to something else: the residual streams of any architecture.

Between the layer and the sum there may be what acts on every channel by itself and linearly: a batch
norm in eval mode, a layer scale, permutations, views, a dropout that is switched off. What is added can
then be carried back to where the layer writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from compressor.observing.layers import LayerCall, observed, rerun

__all__ = ["Followed", "followed"]

Undo = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Followed:
    """A call, and what became of its output.

    `other` is what it was added to, in the layout of the sum, or None where the output went elsewhere.
    `statistics` is the running mean of the batch norm that directly reads it, `number` says the how many-th
    call of a layer it was.
    """

    call: LayerCall
    number: int
    other: Tensor | None = None
    statistics: Tensor | None = None
    _undo: list[Undo] = field(default_factory=list, repr=False)
    _again: list[Callable[[], Tensor]] = field(default_factory=list, repr=False)
    _held: list[Tensor] = field(default_factory=list, repr=False)

    def carried_back(self, tensor: Tensor) -> Tensor:
        """A change of the sum (its layout) as the change of the layer's output that makes it.

        Channels that are multiplied by zero on the way cannot make any, and stay unchanged.
        """
        for undo in reversed(self._undo):
            tensor = undo(tensor)
        return tensor

    def repeat(self) -> None:
        """Compute the output and all that was made of it once more, in place: the weights have changed."""
        self.call.output.copy_(rerun(self.call))
        for result, again in zip(self._held[1:], self._again, strict=True):
            result.copy_(again())

    @property
    def scales(self) -> Tensor:
        """By what each output channel [O] is multiplied on the way; 0 where by zero."""
        ones = self.carried_back(torch.ones_like(self._held[-1]))
        flat = ones.movedim(self.call.channel_dim, 0).flatten(1)[:, 0]
        return torch.where(flat == 0, flat, 1 / flat)


@contextmanager
def followed(model: nn.Module, see: Callable[[Followed], None]) -> Iterator[None]:
    """Within, `see` gets each call of a layer (as `observed`) as soon as it is known where its output goes.

    That is before the sum is computed, so tensors hold what they held then. Calls that are still open at
    the end are told then.
    """
    watch = _Watch(see)
    with watch, observed(model, watch.follow):
        yield
    watch.end()


class _Watch(TorchFunctionMode):
    def __init__(self, see: Callable[[Followed], None]) -> None:
        super().__init__()
        self._see = see
        self._open: list[Followed] = []
        self._count = 0

    def follow(self, call: LayerCall) -> None:
        """Take note of a call's output."""
        self._open.append(Followed(call, self._count, _held=[call.output]))
        self._count += 1

    def end(self) -> None:
        """Tell of those whose output nothing read, a model's own outputs for example."""
        for one in [*self._open]:
            self._close(one)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        readers = self._readers(args, kwargs) if self._open else []
        if not readers:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _ADDS and self._added(readers, args, kwargs):
            return func(*args, **kwargs)
        if name in _QUESTIONS:
            return func(*args, **kwargs)
        step = _STEPS.get(name)
        if step is None:
            # Told before: what is read may be written over, as by an in-place activation.
            for one in readers:
                self._close(one)
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        for one in readers:
            undo = step(one, func, args, kwargs, result) if isinstance(result, Tensor) else None
            if undo is None:
                self._close(one)
            else:
                one._undo.append(undo)
                one._again.append(partial(func, *args, **kwargs))
                one._held.append(result)
        return result

    def _readers(self, args: Any, kwargs: Any) -> list[Followed]:
        """The calls whose output, or what was made of it, is among the arguments."""
        given = {id(leaf) for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return [one for one in self._open if any(id(held) in given for held in one._held)]

    def _added(self, readers: list[Followed], args: Any, kwargs: Any) -> bool:
        """Whether this is a sum of two tensors alike; the later call of two is told what it is added to."""
        if len(args) != 2 or kwargs or not all(isinstance(arg, Tensor) for arg in args):
            return False
        if args[0].shape != args[1].shape:
            return False
        for one in readers:
            last = one._held[-1]
            places = [arg is last for arg in args]
            if one is readers[-1] and sum(places) == 1:
                one.other = args[places.index(False)]
            self._close(one)
        return True

    def _close(self, one: Followed) -> None:
        self._open.remove(one)
        self._see(one)


# -- steps that can be undone ------------------------------------------------------------------------

Step = Callable[[Followed, Callable[..., Any], tuple[Any, ...], Mapping[str, Any], Tensor], Undo | None]


def _same(one: Followed, func: Any, args: Any, kwargs: Any, result: Tensor) -> Undo | None:
    """What keeps the order of elements: they are the same, in another shape."""
    before = one._held[-1]
    if result.numel() != before.numel():
        return None
    return lambda tensor: tensor.reshape(before.shape)


def _dropout(one: Followed, func: Any, args: Any, kwargs: Any, result: Tensor) -> Undo | None:
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    return None if training else _same(one, func, args, kwargs, result)


def _moved(one: Followed, func: Any, args: Any, kwargs: Any, result: Tensor) -> Undo | None:
    """What only moves elements: the same call on their positions says where to."""
    before = one._held[-1]
    if result.numel() != before.numel() or not (args and args[0] is before):
        return None
    positions = torch.arange(before.numel(), device=before.device).reshape(before.shape)
    moved = func(positions, *args[1:], **kwargs).flatten()

    def undo(tensor: Tensor) -> Tensor:
        back = torch.empty_like(tensor.flatten())
        back[moved] = tensor.flatten()
        reshaped: Tensor = back.reshape(before.shape)
        return reshaped

    return undo


def _scaled(one: Followed, func: Any, args: Any, kwargs: Any, result: Tensor) -> Undo | None:
    """A product with numbers that are the same for all examples."""
    before = one._held[-1]
    if len(args) != 2 or kwargs or result.shape != before.shape:
        return None
    factor = args[1] if args[0] is before else args[0]
    if factor is before or (isinstance(factor, Tensor) and not _constant(factor, before)):
        return None
    return _divided(factor)


def _shifted(one: Followed, func: Any, args: Any, kwargs: Any, result: Tensor) -> Undo | None:
    """A sum with numbers that are the same for all examples."""
    before = one._held[-1]
    if len(args) != 2 or kwargs or result.shape != before.shape:
        return None
    other = args[1] if args[0] is before else args[0]
    if other is before or (isinstance(other, Tensor) and not _constant(other, before)):
        return None
    return lambda tensor: tensor


def _constant(other: Tensor, before: Tensor) -> bool:
    """Whether an operand is broadcast along the examples."""
    fewer = other.dim() < before.dim()
    return fewer or isinstance(other, nn.Parameter) or (other.shape[0] == 1 < before.shape[0])


def _normed(one: Followed, func: Any, args: Any, kwargs: Any, result: Tensor) -> Undo | None:
    """A batch norm that reads its statistics."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    variance = given.get("running_var")
    if variance is None or given.get("training", False):
        return None
    if len(one._held) == 1:
        one.statistics = given["running_mean"]
    scale = torch.rsqrt(variance + given.get("eps", 1e-5))
    if given.get("weight") is not None:
        scale = scale * given["weight"]
    return _divided(scale.reshape(-1, *[1] * (result.dim() - 2)))


def _divided(factor: Any) -> Undo:
    def undo(tensor: Tensor) -> Tensor:
        divided: Tensor = tensor / factor
        if isinstance(factor, Tensor):
            return torch.where(factor == 0, torch.zeros_like(divided), divided)
        return divided

    return undo


_ADDS = frozenset(("add", "add_", "__add__", "__iadd__", "__radd__"))
# Asking a tensor for these reads none of its numbers.
_QUESTIONS = frozenset(
    (
        *("__get__", "size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "__len__"),
        *("is_floating_point", "is_complex", "element_size", "get_device", "data_ptr", "storage_offset"),
    )
)
_STEPS: dict[str, Step] = {
    **dict.fromkeys(
        ("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone", "detach"),
        _same,
    ),
    **dict.fromkeys(("permute", "transpose", "movedim", "moveaxis", "swapaxes", "roll"), _moved),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"), _dropout),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "multiply"), _scaled),
    **dict.fromkeys(("add", "__add__", "__radd__"), _shifted),
    "batch_norm": _normed,
}
