"""What is timed: this library and torch-pruning, each pruning half of every layer's channels.

Torch-pruning cuts the network it is given; this library has both forms. So there are four
contenders, two that return a new network and two that change the one they are given.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch_pruning
from torch import Tensor, nn

import compressor as cp
from benchmarks.zoo import heads
from compressor.budget import Uniform
from compressor.scoring import Norm

__all__ = ["CONTENDERS", "IN_PLACE", "STEPS", "Timing", "ours", "ours_", "theirs", "theirs_"]

RATIO = 0.5
STEPS = ("capture", "score", "plan", "apply")


@dataclass(frozen=True)
class Timing:
    """The processor and wall-clock seconds of one run, and those of its steps where it has any."""

    cpu_s: float
    wall_s: float
    steps_s: tuple[float, ...]


def ours(model: nn.Module, x: Tensor) -> tuple[nn.Module, Timing]:
    """A new network by `compressor`: capture, score, plan, apply."""
    watch = _Watch()
    plan = _plan(model, x, watch)
    small = cp.apply(model, plan)
    return small, watch.timing()


def ours_(model: nn.Module, x: Tensor) -> tuple[nn.Module, Timing]:
    """`model` itself, cut by `compressor`: capture, score, plan, apply_."""
    watch = _Watch()
    plan = _plan(model, x, watch)
    cp.apply_(model, plan)
    return model, watch.timing()


def theirs(model: nn.Module, x: Tensor) -> tuple[nn.Module, Timing]:
    """A new network by torch-pruning: a deep copy, then its pruner and one step."""
    watch = _Watch()
    small = copy.deepcopy(model)
    watch.step()
    _peer(small, x)
    return small, watch.timing()


def theirs_(model: nn.Module, x: Tensor) -> tuple[nn.Module, Timing]:
    """`model` itself, cut by torch-pruning: pruner and one step."""
    watch = _Watch()
    _peer(model, x)
    return model, watch.timing()


Contender = Callable[[nn.Module, Tensor], tuple[nn.Module, Timing]]
CONTENDERS: dict[str, Contender] = {
    "ours": ours,
    "ours_": ours_,
    "theirs": theirs,
    "theirs_": theirs_,
}
IN_PLACE = ("ours_", "theirs_")


def _plan(model: nn.Module, x: Tensor, watch: _Watch) -> cp.Plan:
    graph = cp.capture(model, x)
    watch.step()
    scores = cp.score(graph, Norm())
    watch.step()
    plan = cp.plan(scores, Uniform(RATIO))
    watch.step()
    return plan


def _peer(model: nn.Module, x: Tensor) -> None:
    # Without the heads named, it halves the number of classes.
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        x,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=heads(model),
    )
    pruner.step()


class _Watch:
    """A stop watch that starts when it is made."""

    def __init__(self) -> None:
        self._cpu = [time.process_time()]
        self._wall = time.perf_counter()

    def step(self) -> None:
        """Note the end of a step."""
        self._cpu.append(time.process_time())

    def timing(self) -> Timing:
        """What has passed, the last step up to now."""
        self.step()
        cpu = self._cpu
        steps = tuple(b - a for a, b in pairwise(cpu))
        return Timing(cpu[-1] - cpu[0], time.perf_counter() - self._wall, steps)
