"""From a captured model to a plan, in one step or in several."""

from __future__ import annotations

import numpy as np

from compressor.budget import next_step, stages
from compressor.cli.budgets import BudgetOptions, budget_of
from compressor.cli.progress import Progress
from compressor.cli.scorers import ScorerOptions, scorer_of
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.scoring import score

__all__ = ["check_choice", "decide"]


def check_choice(scorer: ScorerOptions, budget: BudgetOptions) -> None:
    """Raise what `decide` would raise for the options alone, before any work."""
    budget_of(budget)
    scorer_of(scorer, seed=0)


def decide(
    graph: Graph,
    scorer: ScorerOptions,
    budget: BudgetOptions,
    *,
    seed: int,
    progress: Progress,
) -> Plan:
    """The one plan on the original model that meets the budget.

    With several steps, channels are scored anew on the model that the steps so far leave. Nothing
    is trained between steps: that takes `compressor.prune(..., between=...)`.
    """
    chosen = budget_of(budget)
    targets = stages(chosen, budget.steps)
    removed = np.zeros(graph.n_units, dtype=bool)
    model, now, note = graph.model, graph, ""
    for number, target in enumerate(targets, start=1):
        part = f", step {number} of {len(targets)}" if len(targets) > 1 else ""
        with progress.step(f"planning {chosen!r}{part}") as detail:
            by = scorer_of(scorer, seed=seed, progress=lambda done: detail(f"batch {done}"))
            scores = score(now, by)
            step = next_step(target, scores, original=graph, removed=removed)
            removed, note = step.removed, f"{scores.scorer}, {chosen!r}"
            if number < len(targets):
                model = apply(model, step.plan)
                now = capture(model, *graph.args, **graph.kwargs)
    return graph.plan(removed, note=note)
