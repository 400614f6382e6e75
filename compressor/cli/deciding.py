"""From a captured model to a plan, in one step or in several."""

from __future__ import annotations

import numpy as np

from compressor.budget import Budget, next_step, stages
from compressor.cli.budget_options import BudgetOptions
from compressor.cli.budgets import budget_of, check_budget, needs_table
from compressor.cli.progress import Progress
from compressor.cli.scorers import ScorerOptions, scorer_of
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.profiling import LatencyTable, latency_table
from compressor.runtimes import OnnxRuntime
from compressor.scoring import score

__all__ = ["budget_for", "check_choice", "decide"]


def check_choice(scorer: ScorerOptions, budget: BudgetOptions) -> None:
    """Raise what `decide` would raise for the options alone, before any work."""
    check_budget(budget)
    scorer_of(scorer, seed=0)


def decide(
    graph: Graph,
    scorer: ScorerOptions,
    budget: BudgetOptions,
    *,
    seed: int,
    progress: Progress,
) -> tuple[Plan, Budget]:
    """The one plan on the original model that meets the budget, and the budget itself.

    With several steps, channels are scored anew on the model that the steps so far leave. Nothing
    is trained between steps: that takes `compressor.prune(..., between=...)`.
    """
    chosen = budget_for(graph, budget, progress)
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
    return graph.plan(removed, note=note), chosen


def budget_for(graph: Graph, budget: BudgetOptions, progress: Progress) -> Budget:
    """The budget of the options for this graph, measured where it has to be."""
    return budget_of(budget, _table(graph, budget, progress) if needs_table(budget) else None)


def _table(graph: Graph, budget: BudgetOptions, progress: Progress) -> LatencyTable:
    with progress.step("measuring the latency of layers in onnxruntime (kept for the next time)"):
        runtime = OnnxRuntime(threads=budget.runtime_threads)
        return latency_table(graph, runtime=runtime, path=budget.latency_table)
