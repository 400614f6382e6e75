"""Replacing convolutions of a model, in a copy of it, and how far its outputs move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from compressor.core.copying import copy_module
from compressor.core.nested import output_tensors
from compressor.design.kernel_changes import KernelChange
from compressor.errors import InputError
from compressor.observing import running

__all__ = ["convolutions", "output_error", "rewrite_kernels", "untouchable"]

_KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def rewrite_kernels(model: nn.Module, changes: Mapping[str, KernelChange]) -> nn.Module:
    """A copy of a model in which the convolutions named in `changes` are changed; all else is the same.

    A convolution that the model holds under several names is changed under all of them. Raises InputError
    where a name is no convolution that can be replaced, or the change does not fit it.

    >>> from compressor.design import SharedBasis
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> small = rewrite_kernels(net, {"0": SharedBasis(4)})
    >>> small[0].depthwise
    Conv2d(3, 12, kernel_size=(3, 3), stride=(1, 1), groups=3, bias=False)
    """
    found = convolutions(model)
    for name, change in changes.items():
        if name not in found:
            known = ", ".join(map(repr, list(found)[:5])) or "none"
            raise InputError(f"rewrite_kernels: {name!r} is no convolution of the model; it has {known}")
        why = untouchable(model, found[name])
        if why:
            raise InputError(f"rewrite_kernels: {name!r} cannot be replaced: {why}")
        change.check(found[name])
    # In the memo of the copy a convolution is what it becomes, wherever the model holds it.
    memo: dict[int, Any] = {id(found[name]): change.of(found[name]) for name, change in changes.items()}
    return copy_module(model, memo)


def convolutions(model: nn.Module) -> dict[str, _ConvNd]:
    """The convolutions of a model by path, transposed ones left out, each once."""
    return {name: m for name, m in model.named_modules() if isinstance(m, _KINDS)}


def untouchable(model: nn.Module, conv: _ConvNd) -> str | None:
    """Why a convolution cannot be replaced by another module at all, or None."""
    if type(conv) not in _KINDS:
        return f"it is a {type(conv).__name__}, whose forward may do more (or its weight is computed)"
    if any(vars(conv)[hooks] for hooks in _HOOKS):
        return "it has hooks, which would be lost (weight norm of the old kind is one)"
    holders = Counter(
        id(parameter) for module in model.modules() for parameter in module._parameters.values()
    )
    if holders[id(conv.weight)] > 1:
        return "another module holds the same weight"
    return None


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@torch.no_grad()
def output_error(model: nn.Module, other: nn.Module, *args: Any, **kwargs: Any) -> float:
    """‖other(x) − model(x)‖ / ‖model(x)‖ over all outputs, both in eval mode and left as they are.

    0 where both are zero. Raises InputError where the outputs differ in number or shape, or are not finite.

    >>> net = nn.Linear(2, 2)
    >>> output_error(net, net, torch.ones(1, 2))
    0.0
    """
    outputs = []
    for network in (model, other):
        with running(network):
            outputs.append(
                [t.detach().to("cpu", torch.float64) for t in output_tensors(network(*args, **kwargs))]
            )
    shapes = [[tuple(tensor.shape) for tensor in found] for found in outputs]
    if shapes[0] != shapes[1]:
        raise InputError(f"outputs of the shapes {shapes[0]} and {shapes[1]} cannot be compared")
    apart = sum(float((b - a).square().sum()) for a, b in zip(*outputs, strict=True))
    whole = sum(float(a.square().sum()) for a in outputs[0])
    if not apart + whole < float("inf"):
        raise InputError("the outputs are not finite, so there is no distance between them")
    return (apart / whole) ** 0.5 if whole else (float("inf") if apart else 0.0)
