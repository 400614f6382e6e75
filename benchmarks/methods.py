"""The ways of pruning that accuracy compares: this library's, torch-pruning's and ModelOpt's.

Every method is asked for at most the same fraction of the MACs, counted by the same profiler.
`all` may cut every layer; `inner` only the channels between a block's two convolutions, which no
shortcut crosses.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch_pruning
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from benchmarks import modelopt, torch_pruned
from benchmarks.cifar import Data
from compressor.budget import Budget, Macs, by_ratio, by_score, by_score_per_mac
from compressor.scoring import (
    LAMP,
    BatchNormScale,
    BetaRank,
    Fisher,
    GeometricMedian,
    Norm,
    Random,
    ReconstructionError,
    Scorer,
    Scores,
    Taylor,
)
from compressor.search import LeastDrop, OutputFidelity, Sensitivity

__all__ = [
    "LONG",
    "ONCE",
    "PEER_SCORERS",
    "SCORERS",
    "Cutter",
    "Method",
    "budget_of",
    "chosen",
    "fraction_of_macs",
    "prune",
]

_SCORED_ON = 512  # training examples for the scorers that need data
_MEASURED_ON = 200  # of them for what a group's cut does to the class scores
_RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)

SCORERS: dict[str, Callable[[Data, int], Scorer]] = {
    "Norm(1)": lambda data, seed: Norm(1),
    "Norm(2)": lambda data, seed: Norm(2),
    "Norm(2, power=2)": lambda data, seed: Norm(2, power=2),
    "Norm(2, power=2, normalize='max')": lambda data, seed: Norm(2, power=2, normalize="max"),
    "GeometricMedian": lambda data, seed: GeometricMedian(),
    "BatchNormScale": lambda data, seed: BatchNormScale(),
    "LAMP": lambda data, seed: LAMP(),
    "Random": lambda data, seed: Random(seed),
    "Taylor": lambda data, seed: Taylor(data.batches(_SCORED_ON), F.cross_entropy),
    "Fisher": lambda data, seed: Fisher(data.batches(_SCORED_ON), F.cross_entropy),
    "BetaRank": lambda data, seed: BetaRank(data.batches(_SCORED_ON)),
    "ReconstructionError": lambda data, seed: ReconstructionError(data.batches(_SCORED_ON)),
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
    """One row of the comparison; `order` says in which order channels go, see `ORDERS`.

    `extra` is what a row gets beyond the cut and the training that all get: "reconstructed" before the
    training, "distilled" in it.
    """

    library: str
    scorer: str
    scope: str
    order: str
    extra: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.library, self.scorer, self.scope, self.order, self.extra)))


_DEFAULT = "Norm(2, power=2)"  # what `cp.prune` takes where no scorer is named
_OF_LARGEST = "Norm(2, power=2, normalize='max')"
_FITTED = "ReconstructionError"
LEAST_DROP = "least drop"
_OURS = Method("ours", _DEFAULT, "all", "global")
_INNER = Method("ours", _DEFAULT, "inner", "global")
_OURS_FITTED = Method("ours", _DEFAULT, "all", "global", "reconstructed")
_BEST = Method("ours", _FITTED, "all", "per MAC", "reconstructed")
_THEIRS = Method("torch-pruning", "Norm(2)", "inner", "global")
_THEIRS_UNIFORM = Method("torch-pruning", "Norm(2)", "inner", "uniform")
_THEIRS_TAYLOR = Method("torch-pruning", "Taylor", "inner", "global")
MAIN = (
    *(_OURS, _THEIRS, _INNER, _THEIRS_UNIFORM, _BEST, _OURS_FITTED, _THEIRS_TAYLOR),
    Method("ours", _OF_LARGEST, "all", "global"),
    Method("ours", _OF_LARGEST, "inner", "global"),
    Method("ours", _FITTED, "all", "per MAC"),
)
# Beside the comparison proper: run at half of the MACs only.
ONCE = (
    Method("torch-pruning", "Norm(2)", "all", "global"),
    Method("ours", "Taylor", "all", "per MAC"),
    Method("ours", _FITTED, "all", "per MAC", "reconstructed, distilled"),
    Method("ours", _DEFAULT, "all", LEAST_DROP),
    Method("ours", "BetaRank", "inner", "global"),
    Method("ours", "Random", "inner", "global"),
    Method("modelopt", "FastNAS", "inner", "search"),
)
DEEP = MAIN[:8]  # for the slower network
LONG = (_THEIRS, _INNER, _OURS_FITTED, _BEST)  # for a longer training
TUNING = (_THEIRS, _OURS, _BEST)  # for which rates are compared


def chosen(*, quick: bool, every: bool = False, deep: bool = False) -> list[Method]:
    """The methods, ours and theirs in turn, so that a slow hour hits both."""
    if quick:
        return [_OURS, _THEIRS, _INNER, _OURS_FITTED]
    if not every:
        return list(DEEP if deep else MAIN + ONCE)
    mine = [Method("ours", name, scope, "global") for name in SCORERS for scope in ("all", "inner")]
    mine += [Method("ours", _DEFAULT, scope, "uniform") for scope in ("all", "inner")]
    theirs = [
        Method("torch-pruning", name, "inner", order)
        for name in PEER_SCORERS
        for order in ("global", "uniform")
    ]
    theirs += [Method("torch-pruning", "Norm(2)", "all", order) for order in ("global", "uniform")]
    longest = max(len(mine), len(theirs))
    turns = [[*mine[i : i + 1], *theirs[i : i + 1]] for i in range(longest)]
    return list(dict.fromkeys([*MAIN, *ONCE, *(method for turn in turns for method in turn)]))


def budget_of(method: Method, fraction: float) -> Macs:
    """What one of this library's methods is asked for."""
    ignore = ("conv1", "layer*.conv2") if method.scope == "inner" else ()
    return Macs(fraction, order=ORDERS[method.order], ignore=ignore)


def prune(
    model: nn.Module, x: Tensor, method: Method, *, fraction: float, data: Data, seed: int
) -> nn.Module:
    """A new network with at most `fraction` of the MACs, by `method`."""
    return Cutter(model, data).cut(method, fraction, seed)


def fraction_of_macs(model: nn.Module, small: nn.Module, x: Tensor) -> float:
    """MACs of `small` over those of `model`."""
    return cp.profile(small, x).macs / cp.profile(model, x).macs


class Cutter:
    """A network and its data; what a scorer or a measurement found holds for all fractions."""

    def __init__(self, model: nn.Module, data: Data) -> None:
        self._model, self._data = model, data
        self._x = data.x_test[:1]
        self._graph = cp.capture(model, self._x)
        self._kept: dict[Hashable, Any] = {}

    def cut(self, method: Method, fraction: float, seed: int) -> nn.Module:
        """A new network with at most `fraction` of the MACs; one of ours is proved by `verify`."""
        if method.library == "modelopt":
            return modelopt.prune(self._model, self._x, self._data, fraction=fraction)
        if method.library != "ours":
            return _theirs(self._model, self._x, method, fraction, self._data, seed)
        scores = self._scores(method.scorer, seed)
        budget: Budget = (
            LeastDrop(self._sensitivity(scores), Macs(fraction))
            if method.order == LEAST_DROP
            else budget_of(method, fraction)
        )
        plan = cp.plan(scores, budget)
        small = cp.apply(self._model, plan)
        cp.verify(self._model, small, plan, self._x, graph=self._graph)
        return small

    def _scores(self, name: str, seed: int) -> Scores:
        key = name, seed if name == "Random" else 0
        if key not in self._kept:
            self._kept[key] = cp.score(self._graph, SCORERS[name](self._data, seed))
        found = self._kept[key]
        assert isinstance(found, Scores)
        return found

    def _sensitivity(self, scores: Scores) -> Sensitivity:
        """How far the class scores of training images move when a group is cut, without labels."""
        if LEAST_DROP not in self._kept:
            images = self._data.x_train[:_MEASURED_ON]
            self._kept[LEAST_DROP] = cp.search.sensitivity(
                self._model,
                self._x,
                evaluate=OutputFidelity(self._model, list(images.split(100))),
                scorer=SCORERS[_DEFAULT](self._data, 0),
                ratios=_RATIOS,
                name="output fidelity",
            )
        found = self._kept[LEAST_DROP]
        assert isinstance(found, Sensitivity)
        return found


def _theirs(model: nn.Module, x: Tensor, method: Method, fraction: float, data: Data, seed: int) -> nn.Module:
    ignored = ["linear"]
    if method.scope == "inner":
        ignored += ["conv1", *(name for name, _ in model.named_modules() if name.endswith("conv2"))]
    return torch_pruned.prune(
        model,
        x,
        PEER_SCORERS[method.scorer],
        fraction=fraction,
        together=method.order == "global",
        ignored=ignored,
        batches=data.batches(_SCORED_ON) if method.scorer == "Taylor" else (),
        seed=seed,
    )
