"""A search for ratios by Optuna: what heuristics choose first, then what a sampler makes of the results."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from compressor.budget import All, Budget, by_ratio, by_score
from compressor.budget.cost_fraction import CostFraction, fewest_for
from compressor.budget.ladder import Lost
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.core.verify import Report, verify
from compressor.errors import BudgetError, InputError, UnreachableBudgetError
from compressor.profiling.priced import Priced
from compressor.scoring import DEFAULT, Scorer, Scores, score
from compressor.scoring.weight_function import WeightScore
from compressor.search.curves import Sensitivity
from compressor.search.drops import LeastDrop
from compressor.search.evaluating import Evaluate, check_evaluate, measure, name_of, weights_digest
from compressor.search.frontier import Frontier
from compressor.search.studies import open_study, optuna_module
from compressor.search.trials import LOST, QUALITY, Requirement, Search, complete, parts_of_budget

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["Found", "find"]

log = logging.getLogger(__name__)

CostOf = Callable[[Graph], Priced]


@dataclass(frozen=True, eq=False)
class Found:
    """The best cut of a search: `model`, proved to be what `plan` makes of the original, and its `quality`.

    `start` is the quality of the best heuristic that it started from, `frontier` holds the original and every
    distinct cut that meets all requirements, `infeasible` counts the distinct cuts that do not.
    """

    model: nn.Module = field(repr=False)
    plan: Plan = field(repr=False)
    quality: float
    start: float | None
    proof: Report
    frontier: Frontier
    trials: int
    infeasible: int

    def __str__(self) -> str:
        whole = self.frontier.points[0].quality
        start = (
            "no heuristic meets the requirements" if self.start is None else f"{self.start:.4g} by heuristics"
        )
        lines = [
            f"{self.frontier.evaluation} {self.quality:.4g} ({start}, {whole:.4g} before) after "
            f"{self.trials} trials",
            str(self.proof),
        ]
        if self.infeasible:
            lines.insert(1, f"{self.infeasible} cuts did not meet the requirements")
        return "\n".join(lines)


def find(
    model: nn.Module,
    *args: Any,
    evaluate: Evaluate,
    budget: CostFraction | All,
    scorer: Scorer | WeightScore | None = None,
    sensitivity: Sensitivity | None = None,
    starts: Sequence[Budget] = (),
    minimize: Sequence[CostOf] = (),
    requirements: Mapping[str, Requirement] | None = None,
    trials: int = 100,
    storage: str | os.PathLike[str] | BaseStorage | None = None,
    study: str = "compressor",
    name: str | None = None,
    seed: int = 0,
    progress: bool = True,
    **kwargs: Any,
) -> Found:
    """The cut of the best quality that a search over the ratios of all groups finds within `budget`.

    `args` and `kwargs` are example inputs, `evaluate`, `scorer` and `name` those of `sensitivity`. Every
    trial weighs the groups against each other; channels then go in these proportions until the budget is
    met, and no further. The first trials are what heuristics choose: the budget itself, the budget with all
    channels ranked together and with all layers thinned alike, the least predicted drop where a
    `sensitivity` is given, and the budgets in `starts`. So what comes out is never worse than the best of
    them by `evaluate`; whether it is better on other data only other data can tell.

    `requirements` are asked of every cut model, by name: what they return must be <= 0, such as 0.7 minus the
    recall of a class. A cut that does not meet them counts as infeasible, and the search turns away from it.
    With `minimize=[cp.profiling.macs]` costs are objectives beside the quality: cuts may go beyond what the
    budget asks, and `frontier` is what one looks at.

    `trials` is how many a study has at its end, all calls and processes together. A `storage` (a file, or the
    URL of a database) keeps them: the same call goes on after an interruption, and several processes or
    machines that make the same call share the work (the last of them may each add a trial). The study is
    refused where model, budget, scorer, evaluation or seed have changed. Needs compressor[search] (Optuna).

    Raises EvaluationError where `evaluate` or a requirement raises or returns no finite number (the study
    remains), UnreachableBudgetError where the budget cannot be met, or no cut meets the requirements.

    *Source: a third of the trials is drawn as by J. Bergstra, R. Bardenet, Y. Bengio, B. Kégl, 2011
    (tree-structured Parzen estimator, of Optuna)*; the others vary a few groups of the best cut so far, which
    finds more in few trials where the starts are good. Departure from searches over plain ratios (AMC, arXiv
    1802.03494): proportions instead, so that no trial is spent on a network that is too large or needlessly
    small.

    >>> import torch; from compressor.budget import Macs; from compressor.search import OutputFidelity
    >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    >>> x = torch.rand(16, 4)
    >>> found = find(net, x, evaluate=OutputFidelity(net, [x]), budget=Macs(0.5), trials=10)
    >>> found.trials, found.quality >= found.start
    (10, True)
    """
    optuna_module()
    check_evaluate(evaluate)
    _check(budget, trials, minimize, requirements or {}, starts)
    called = name_of(evaluate, name, kept=storage is not None)
    graph = capture(model, *args, **kwargs)
    scores = score(graph, DEFAULT if scorer is None else scorer)
    ladder = budget.ladder(scores)
    fewest_for(budget, parts_of_budget(budget), ladder, by_score)  # raises where the budget cannot be met
    search = Search(
        ladder, budget, evaluate, dict(requirements or {}), [cost(graph) for cost in minimize], seed
    )
    question = {
        "model": graph.signature.model,
        "weights": weights_digest(model),
        "scorer": scores.scorer,
        "budget": repr(budget),
        "evaluation": called,
        "requirements": sorted(requirements or {}),
        "minimize": [cost.name for cost in search.minimize],
        "seed": seed,
    }
    with _quiet():
        opened = open_study(
            storage,
            name=study,
            directions=["maximize", *["minimize"] * len(minimize)],
            question=question,
            seed=seed,
        )
        first = _starts(search, scores, sensitivity, starts)
        search.run(opened, list(first.values()), trials=trials, progress=progress)
        return _found(search, opened, first, called, args, kwargs)


def _found(
    search: Search,
    study: Study,
    starts: Mapping[str, Lost],
    called: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Found:
    """What the trials of a study come to."""
    graph = search.ladder.graph
    names = {tuple(lost.tolist()): name for name, lost in starts.items()}
    trials = complete(study)
    distinct = {tuple(trial.user_attrs[LOST]): trial for trial in reversed(trials)}
    feasible = {
        lost: trial for lost, trial in distinct.items() if max(trial.constraints.values(), default=0) <= 0
    }
    if not feasible:
        raise UnreachableBudgetError(_unmet(list(distinct.values())))
    empty = graph.plan(np.zeros(graph.n_units, dtype=bool))
    whole = measure(graph.model, empty, search.evaluate, where=graph.signature.model, seed=search.seed)
    points = [search.point("original", whole, None)]
    for lost, trial in feasible.items():
        name = names.get(lost, f"trial {trial.number}")
        plan = search.plan(lost, note=f"{name} of a search within {search.budget!r}")
        points.append(search.point(name, trial.user_attrs[QUALITY], plan))
    by = tuple(cost.name for cost in search.minimize) or ("macs",)
    best = max(points[1:], key=lambda p: (p.quality, -p.costs[by[0]]))
    assert best.plan is not None
    small = apply(graph.model, best.plan)
    proof = verify(graph.model, small, best.plan, *args, graph=graph, **kwargs)
    held = search.budget.check(graph.model, small, args, kwargs)
    if held is not None:
        log.info("%s", held)
    at_start = [p.quality for p in points[1:] if p.name in starts]
    return Found(
        model=small,
        plan=best.plan,
        quality=best.quality,
        start=max(at_start, default=None),
        proof=proof,
        frontier=Frontier(tuple(points), called, by),
        trials=len(trials),
        infeasible=len(distinct) - len(feasible),
    )


def _unmet(trials: Sequence[FrozenTrial]) -> str:
    nearest = min(trials, key=lambda trial: sum(max(0.0, value) for value in trial.constraints.values()))
    values = ", ".join(f"{key} = {value:.4g}" for key, value in nearest.constraints.items())
    return (
        f"none of {len(trials)} cuts meets the requirements, which have to be <= 0; the nearest has {values} "
        f"and the quality {nearest.user_attrs[QUALITY]:.4g}. Relax them or the budget, or go on with more "
        "trials"
    )


def _starts(
    search: Search, scores: Scores, sensitivity: Sensitivity | None, more: Sequence[Budget]
) -> dict[str, Lost]:
    """The cuts in the proportions that heuristics choose, by their names; each cut once."""
    budget = search.budget
    chosen: list[Budget] = [budget, replace(budget, order=by_score), replace(budget, order=by_ratio)]
    if sensitivity is not None:
        limits = {each.name: getattr(budget, each.name) for each in fields(Budget)}
        chosen.append(LeastDrop(sensitivity, parts_of_budget(budget), **limits))
    found: dict[str, Lost] = {}
    for each in (*chosen, *more):
        removed = each.choose(scores)
        chose = np.array([removed[group.cells[0]].sum() for group in scores.graph.groups], dtype=np.int64)
        lost = search.settled(chose)
        if not any(np.array_equal(lost, other) for other in found.values()):
            name = repr(each)
            found[name if name not in found else f"{name}, start {len(found) + 1}"] = lost
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, Optuna says what goes wrong and no more."""
    logging_of = optuna_module().logging
    before = logging_of.get_verbosity()
    logging_of.set_verbosity(logging_of.WARNING)
    try:
        yield
    finally:
        logging_of.set_verbosity(before)


def _check(
    budget: object, trials: object, minimize: object, requirements: Mapping[str, object], starts: object
) -> None:
    """Raise for arguments that make no sense, before any work."""
    if not isinstance(budget, CostFraction | All):
        raise BudgetError(
            f"find searches within fractions of costs, Macs(0.5) or All([Macs(0.5), Memory(0.6)]), got "
            f"{type(budget).__name__} {budget!r}"
        )
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise InputError(f"trials = {trials!r}: how many trials the study has at its end, at least 1")
    if not isinstance(minimize, Sequence) or not all(callable(cost) for cost in minimize):
        raise InputError(
            f"minimize = {minimize!r}: a list of functions that make a cost of a graph is expected, such as "
            "[profiling.macs]"
        )
    for key, asked in requirements.items():
        if not callable(asked):
            raise InputError(f"requirements[{key!r}] = {asked!r}: a function of a model is expected")
    if not isinstance(starts, Sequence) or not all(isinstance(start, Budget) for start in starts):
        raise InputError(
            f"starts = {starts!r}: a list of budgets is expected, such as [Macs(0.5, order=by_ratio)]"
        )
