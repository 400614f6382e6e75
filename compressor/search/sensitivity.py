"""Sensitivity analysis: every group is cut alone, at several ratios, and the user's evaluation is asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from compressor.budget import Ladder
from compressor.budget.explain import why_nothing
from compressor.budget.layers import Layers
from compressor.budget.limits import Limits
from compressor.budget.numbers import check_ratio
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, NothingToPruneError
from compressor.profiling.cost import macs
from compressor.scoring import DEFAULT, Scorer, score
from compressor.scoring.weight_function import WeightScore
from compressor.search.curves import Curve, Sensitivity, labels, ranks
from compressor.search.evaluating import Evaluate, check_evaluate, name_of, weights_digest
from compressor.search.files import Journal
from compressor.search.measuring import Task, measured, plan_digest

__all__ = ["sensitivity"]

_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def sensitivity(
    model: nn.Module,
    *args: Any,
    evaluate: Evaluate,
    scorer: Scorer | WeightScore | None = None,
    ratios: Sequence[float] = _RATIOS,
    groups: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    name: str | None = None,
    workers: int | Executor = 1,
    seed: int = 0,
    progress: bool = True,
    **kwargs: Any,
) -> Sensitivity:
    """How much the quality of `model` falls when each group of coupled channels alone loses each ratio.

    `args` and `kwargs` are example inputs. `evaluate(small)` returns one number, larger = better: an
    accuracy, the negative of a loss, or an `OutputFidelity`, which needs no labels and sees small cuts where
    an accuracy on a few hundred examples stays the same. It gets a copy in eval mode, which it may change,
    and draws from `seed`. `scorer` (`scoring.DEFAULT`) says which channels of a group go
    first; `groups` are name patterns as budgets take them, all groups by default. Ratios that come to the
    same number of channels are measured once.

    `cache` is a file that takes every measurement when it is done: after Ctrl-C, an error or a kill the same
    call goes on from there, and another scorer or other ratios use what they share. It knows the weights, the
    seed and the evaluation by its `name` (by default that of the function in its module), and is refused for
    others; data that changes behind that name it cannot see.

    `workers` processes measure at once, each started anew ("spawn"): a script needs `if __name__ ==
    "__main__":`, and model and `evaluate` are pickled, by cloudpickle where it is installed. Or give an
    executor of your own, threads say; there an `evaluate` that draws random numbers is not repeatable.

    Raises EvaluationError where `evaluate` raises or returns no finite number, NothingToPruneError where no
    channel may go, BudgetError for ratios that are none and patterns that match nothing.

    *Source: H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf, 2017, arXiv 1608.08710, section 3.2 (each
    layer alone); here coupled layers are cut together.*

    >>> import torch; from compressor.search import OutputFidelity
    >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2)).eval()
    >>> batches = [torch.rand(16, 4)]
    >>> found = sensitivity(net, batches[0], evaluate=OutputFidelity(net, batches), ratios=(0.2, 0.5))
    >>> found.curves[0].lost, found.quality
    ((2, 5), 1.0)
    """
    check_evaluate(evaluate)
    _check_workers(workers)
    wanted = _checked_ratios(ratios)
    called = name_of(evaluate, name, kept=cache is not None)
    graph = capture(model, *args, **kwargs)
    scores = score(graph, DEFAULT if scorer is None else scorer)
    ladder = Ladder.of(graph, scores.values, Limits(), None)
    chosen = _chosen(graph, groups, ladder)
    head: dict[str, str | int] = {"weights": weights_digest(model), "evaluation": called, "seed": seed}
    journal = Journal(cache, head)
    cuts = {
        position: tuple(
            dict.fromkeys(n for ratio in wanted if (n := ranks(ratio, graph.groups[position].size)))
        )
        for position in chosen
    }
    names = labels(graph)
    tasks = {(-1, 0): _task(ladder, None, 0, graph.signature.model)}
    tasks.update(((p, n), _task(ladder, p, n, names[p])) for p, lost in cuts.items() for n in lost)
    left = [task for task in tasks.values() if task.key not in journal.known]
    bar = tqdm(
        total=len(tasks),
        initial=len(tasks) - len(left),
        desc="sensitivity",
        leave=False,
        disable=None if progress else True,
    )
    with bar:
        for task, quality in measured(model, left, evaluate, seed=seed, workers=workers):
            journal.add(task.key, quality, what=task.what)
            bar.update()
    found = {at: journal.known[task.key] for at, task in tasks.items()}
    cost = macs(graph).along(ladder.order)
    curves = tuple(
        Curve(
            names[position],
            graph.groups[position].size,
            lost,
            tuple(found[position, n] for n in lost),
            tuple(int(cost(_alone(ladder, position, n))) for n in lost),
        )
        for position, lost in cuts.items()
    )
    whole = macs(graph).total()
    return Sensitivity(
        graph.signature.model,
        str(head["weights"]),
        scores.scorer,
        called,
        seed,
        found[-1, 0],
        whole,
        wanted,
        curves,
    )


def _alone(ladder: Ladder, position: int | None, count: int) -> np.ndarray:
    lost = np.zeros(len(ladder.order), dtype=np.int64)
    if position is not None:
        lost[position] = count
    return lost


def _task(ladder: Ladder, position: int | None, count: int, name: str) -> Task:
    plan = ladder.graph.plan(ladder.mask(_alone(ladder, position, count)))
    what = (
        name if position is None else f"{name} without {count} of {ladder.graph.groups[position].size} ranks"
    )
    return Task(plan_digest(plan), what, plan)


def _checked_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    if isinstance(ratios, str) or not isinstance(ratios, Sequence) or not ratios:
        raise InputError(
            f"ratios = {ratios!r}: a list of removed shares is expected, such as (0.25, 0.5, 0.75)"
        )
    for ratio in ratios:
        check_ratio("ratios", ratio)
    return tuple(sorted({float(ratio) for ratio in ratios}))


def _check_workers(workers: object) -> None:
    if isinstance(workers, Executor):
        return
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InputError(
            f"workers = {workers!r}: how many processes, at least 1, or an executor of concurrent.futures"
        )


def _chosen(graph: Graph, groups: Sequence[str] | None, ladder: Ladder) -> list[int]:
    if not ladder.end.any():
        raise NothingToPruneError(
            f"no channel of {graph.signature.model} may be removed: {why_nothing(ladder)}"
        )
    if groups is None:
        return list(range(len(graph.groups)))
    if isinstance(groups, str) or not groups:
        raise InputError(f"groups = {groups!r}: a list of name patterns is expected, such as ['layer1.*']")
    layers = Layers(graph)
    found = {pattern: layers.groups_of("groups", pattern) for pattern in groups}
    for pattern, positions in found.items():
        if not positions:
            raise InputError(
                f"groups: no channel that {pattern!r} writes can be removed; graph.explain(name) says why"
            )
    return sorted({position for positions in found.values() for position in positions})
