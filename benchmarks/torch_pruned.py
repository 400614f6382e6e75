"""torch-pruning brought to a fraction of the MACs, which it has no budget for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bisection import largest_within

__all__ = ["prune"]

_STEPS = 12


def prune(
    model: nn.Module,
    x: Tensor,
    importance: Callable[[], Any],
    *,
    fraction: float,
    together: bool,
    ignored: Sequence[str],
    batches: Iterable[tuple[Tensor, Tensor]] = (),
    seed: int = 0,
) -> nn.Module:
    """The largest network in eval mode with at most `fraction` of the MACs, by its magnitude pruner.

    `together` ranks all layers together, otherwise all are thinned alike. The layers `ignored` keep their
    outputs. For an importance that reads gradients, `batches` are what the loss is summed over.
    """
    gradients = _gradients(model, batches)

    def cut(ratio: float) -> nn.Module | None:
        small = copy.deepcopy(model)
        for parameter, gradient in zip(small.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        torch.manual_seed(seed)  # its random importance draws from the global generator
        pruner = torch_pruning.pruner.MagnitudePruner(
            small,
            x,
            importance=importance(),
            pruning_ratio=ratio,
            global_pruning=together,
            ignored_layers=[small.get_submodule(name) for name in ignored],
        )
        pruner.step()
        small.zero_grad()
        small.eval()
        return small if _runs(small, x) else None

    return largest_within(fraction, model, x, cut, steps=_STEPS)


def _gradients(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Those of the summed loss, for each parameter."""
    total = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        for own, found in zip(total, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            own += found
    return total


def _runs(small: nn.Module, x: Tensor) -> bool:
    """Whether the network runs; one that is left without channels in a layer does not."""
    try:
        small(x)
    except RuntimeError:
        return False
    return True
