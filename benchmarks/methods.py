"""The ways of pruning that accuracy compares: this library's scorers and torch-pruning's.

Every method is asked for at most the same fraction of the MACs, counted by the same profiler.
`all` may cut every layer; `inner` only the channels between a block's two convolutions, which no
shortcut crosses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from benchmarks.cifar import Data
from compressor.budget import Macs, by_ratio, by_score, by_score_per_mac
from compressor.scoring import (
    LAMP,
    BatchNormScale,
    Fisher,
    GeometricMedian,
    Norm,
    Random,
    Scorer,
    Taylor,
)

__all__ = ["PEER_SCORERS", "SCORERS", "Method", "budget_of", "chosen", "fraction_of_macs", "prune"]

_SCORED_ON = 512  # training examples for the scorers that need data

SCORERS: dict[str, Callable[[Data, int], Scorer]] = {
    "Norm(1)": lambda data, seed: Norm(1),
    "Norm(2)": lambda data, seed: Norm(2),
    "GeometricMedian": lambda data, seed: GeometricMedian(),
    "BatchNormScale": lambda data, seed: BatchNormScale(),
    "LAMP": lambda data, seed: LAMP(),
    "Random": lambda data, seed: Random(seed),
    "Taylor": lambda data, seed: Taylor(data.batches(_SCORED_ON), F.cross_entropy),
    "Fisher": lambda data, seed: Fisher(data.batches(_SCORED_ON), F.cross_entropy),
}

_importance = torch_pruning.importance
PEER_SCORERS: dict[str, Callable[[], Any]] = {
    "Norm(1)": lambda: _importance.GroupMagnitudeImportance(p=1),
    "Norm(2)": lambda: _importance.GroupMagnitudeImportance(p=2),
    "GeometricMedian": lambda: _importance.FPGMImportance(),
    "BatchNormScale": lambda: _importance.BNScaleImportance(),
    "LAMP": lambda: _importance.LAMPImportance(),
    "Random": lambda: _importance.RandomImportance(),
    "Taylor": lambda: _importance.GroupTaylorImportance(),
}


ORDERS = {"global": by_score, "uniform": by_ratio, "per MAC": by_score_per_mac}


@dataclass(frozen=True)
class Method:
    """One row of the comparison; `order` says in which order channels go, see `ORDERS`."""

    library: str
    scorer: str
    scope: str
    order: str

    def __str__(self) -> str:
        return f"{self.library} {self.scorer} {self.scope} {self.order}"


def chosen(*, quick: bool, peers: str) -> list[Method]:
    """The methods, ours and theirs in turn, so that a slow hour hits both."""
    names = ["Norm(2)", "Taylor"] if quick else list(SCORERS)
    mine = [Method("ours", name, scope, "global") for name in names for scope in ("all", "inner")]
    mine += [Method("ours", "Norm(2)", scope, "uniform") for scope in ("all", "inner")]
    likes = (
        [n for n in PEER_SCORERS if n != "Taylor"]
        if peers == "every"
        else ["Norm(2)"]
        if quick
        else names[:2]
    )
    orders = ("global", "uniform")
    theirs = [Method("torch-pruning", name, "inner", order) for name in likes for order in orders]
    theirs += [Method("torch-pruning", "Norm(2)", "all", order) for order in orders]
    longest = max(len(mine), len(theirs))
    turns = [[*mine[i : i + 1], *theirs[i : i + 1]] for i in range(longest)]
    return [method for turn in turns for method in turn]


def budget_of(method: Method, fraction: float) -> Macs:
    """What one of this library's methods is asked for."""
    ignore = ("conv1", "layer*.conv2") if method.scope == "inner" else ()
    return Macs(fraction, order=ORDERS[method.order], ignore=ignore)


def prune(
    model: nn.Module, x: Tensor, method: Method, *, fraction: float, data: Data, seed: int
) -> nn.Module:
    """A new network with at most `fraction` of the MACs, by `method`."""
    if method.library == "ours":
        return _ours(model, x, method, fraction, data, seed)
    return _theirs(model, x, method, fraction, data, seed)


def fraction_of_macs(model: nn.Module, small: nn.Module, x: Tensor) -> float:
    """MACs of `small` over those of `model`."""
    return cp.profile(small, x).macs / cp.profile(model, x).macs


def _ours(model: nn.Module, x: Tensor, method: Method, fraction: float, data: Data, seed: int) -> nn.Module:
    scorer = SCORERS[method.scorer](data, seed)
    return cp.prune(model, x, scorer=scorer, budget=budget_of(method, fraction))


def _theirs(model: nn.Module, x: Tensor, method: Method, fraction: float, data: Data, seed: int) -> nn.Module:
    """The largest network within `fraction` that a bisection over its pruning ratio finds."""
    low, high, best = 0.0, 1.0, None
    gradients = _gradients(model, data) if method.scorer == "Taylor" else None
    for _ in range(12):
        ratio = (low + high) / 2
        small = _with_ratio(model, x, method, ratio, gradients, seed)
        if small is not None and fraction_of_macs(model, small, x) > fraction:
            low = ratio
            continue
        high = ratio
        best = small if small is not None else best
    if best is None:
        raise RuntimeError(f"{method} reaches {fraction:g} of the MACs with no pruning ratio")
    return best


def _gradients(model: nn.Module, data: Data) -> list[Tensor]:
    """Those of the loss over the examples that our scorers read, for each parameter."""
    total = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for images, labels in data.batches(_SCORED_ON):
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        for own, found in zip(total, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            own += found
    return total


def _with_ratio(
    model: nn.Module,
    x: Tensor,
    method: Method,
    ratio: float,
    gradients: list[Tensor] | None,
    seed: int,
) -> nn.Module | None:
    """A copy pruned by torch-pruning; None where it is left without channels and cannot run."""
    torch.manual_seed(seed)  # its random importance draws from the global generator
    small = copy.deepcopy(model)
    if gradients is not None:
        for parameter, gradient in zip(small.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
    blocks = [module for name, module in small.named_modules() if name.endswith("conv2")]
    ignored = [small.get_submodule("linear")]
    if method.scope == "inner":
        ignored += [small.get_submodule("conv1"), *blocks]
    pruner = torch_pruning.pruner.MagnitudePruner(
        small,
        x,
        importance=PEER_SCORERS[method.scorer](),
        pruning_ratio=ratio,
        global_pruning=method.order == "global",
        ignored_layers=ignored,
    )
    pruner.step()
    small.zero_grad()
    small.eval()
    try:
        small(x)
    except RuntimeError:
        return None
    return small
