"""The verbs that join the layers: plan and prune."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from compressor.budget import Budget, next_step, stages
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.core.verify import verify
from compressor.errors import InputError
from compressor.observing.processes import Processes
from compressor.scoring import DEFAULT, Scorer, Scores, score
from compressor.scoring.weight_function import WeightScore

__all__ = ["plan", "prune"]

log = logging.getLogger(__name__)


def plan(scores: Scores, budget: Budget) -> Plan:
    """The plan that removes the least important channels until `budget` is met.

    Raises BudgetError and its kin where the budget makes no sense or cannot be met.

    >>> import torch, compressor as cp
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> scores = cp.score(cp.capture(net, torch.ones(1, 4)), cp.scoring.Norm())
    >>> print(cp.plan(scores, cp.budget.Uniform(0.5)).summary())
    layer          writes           reads
    0              8 -> 4               -
    2                   -          8 -> 4
    """
    if not isinstance(budget, Budget):
        raise InputError(
            f"plan needs a budget such as budget.Macs(0.5), got {type(budget).__name__} {budget!r}"
        )
    removed = budget.choose(scores)
    return scores.graph.plan(removed, note=f"{scores.scorer}, {budget!r}")


def prune(
    model: nn.Module,
    *args: Any,
    budget: Budget,
    scorer: Scorer | WeightScore | None = None,
    steps: int = 1,
    between: Callable[[nn.Module], object] | None = None,
    recover: Callable[[nn.Module, nn.Module, Plan], object] | None = None,
    check: bool = True,
    processes: Processes | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A new, smaller model: captured, scored, cut to `budget` and verified; `model` stays as it is.

    `args` and `kwargs` are example inputs of `model`. Where no `scorer` is given it is `scoring.DEFAULT`,
    `Norm(power=2)`. With `steps > 1` the budget is approached gradually: channels are scored anew after every
    step, and `between(small)` may fine-tune the model in place between two steps. `recover(small, model,
    plan)` makes up for the cut in place after every step, the last one too, once the cut is proved:
    `recovery.Reconstruction(batches)`, say. `check=False` leaves the proof out. `processes` is for scorers
    that read batches under torchrun, see `score`. A budget that promises what it predicts (`Latency`)
    measures the result at the end, and warns where the promise is not kept.

    Raises an error of `compressor.errors` that says what is wrong and what to do; VerifyError means
    that the result would have been wrong, and none is returned.

    >>> import torch, compressor as cp
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
    >>> small = cp.prune(net, torch.rand(1, 3, 8, 8), budget=cp.budget.Macs(0.5))
    >>> small[0]
    Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
    """
    if not isinstance(budget, Budget):
        raise InputError(
            f"prune needs a budget such as budget.Macs(0.5), got {type(budget).__name__} {budget!r}"
        )
    for name, function in (("between", between), ("recover", recover)):
        if function is not None and not callable(function):
            raise InputError(
                f"prune({name}=...) takes a function, got {type(function).__name__} {function!r}"
            )
    chosen = DEFAULT if scorer is None else scorer
    targets = stages(budget, steps)
    graph = capture(model, *args, **kwargs)
    small, now = model, graph
    removed = np.zeros(graph.n_units, dtype=bool)
    for number, target in enumerate(targets, start=1):
        step = next_step(target, score(now, chosen, processes=processes), original=graph, removed=removed)
        small, removed = apply(small, step.plan), step.removed
        if check:
            log.info("%s", _verified(graph, small, removed))
        log.info("step %d of %d: %s, %d units removed", number, steps, target, int(removed.sum()))
        if recover is not None:
            recover(small, model, graph.plan(removed))
        if number < len(targets):
            if between is not None:
                between(small)
            now = capture(small, *args, **kwargs)
    held = budget.check(model, small, args, kwargs)
    if held is not None:
        log.info("%s", held)
    return small


def _verified(graph: Graph, small: nn.Module, removed: np.ndarray) -> object:
    """The proof that `small` is what one plan makes of the original."""
    whole = graph.plan(removed)
    return verify(graph.model, small, whole, *graph.args, graph=graph, **graph.kwargs)
