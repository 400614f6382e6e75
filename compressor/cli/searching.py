"""The command `search`: the ratios of all layers that keep most quality within a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, cast

import typer
from torch import nn

from compressor.budget import All
from compressor.budget.cost_fraction import CostFraction
from compressor.cli.budget_options import BudgetOptions
from compressor.cli.budgets import check_budget
from compressor.cli.command import Result, command
from compressor.cli.deciding import budget_for
from compressor.cli.evaluating import EvaluateOptions, check_evaluation, evaluation_of, function_of
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of, warn_if_random
from compressor.cli.places import FigureOptions, check_figure, check_file
from compressor.cli.planning import PlanFileOptions
from compressor.cli.progress import Progress
from compressor.cli.scorers import ScorerOptions, scorer_of
from compressor.core.capture import capture
from compressor.reporting import save_frontier_figure
from compressor.search import Found, Sensitivity, find

__all__ = ["SearchOptions", "search"]


@dataclass(frozen=True)
class SearchOptions:
    """How long is searched, and what is kept."""

    trials: Annotated[
        int,
        typer.Option(
            "--trials", min=1, help="Trials in all, earlier ones included.", rich_help_panel="Search"
        ),
    ] = 100
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="FILE|URL",
            help="Keeps the trials (a file, or sqlite:///search.db): the same command goes on, and several "
            "at once share the work.",
            rich_help_panel="Search",
        ),
    ] = None
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="NAME=MODULE:FUNCTION",
            help="A function of a model whose value has to be <= 0. Repeatable.",
            rich_help_panel="Search",
        ),
    ] = None
    frontier: Annotated[
        Path | None,
        typer.Option(
            "--frontier",
            metavar="FILE",
            help="JSON file for all cuts that were tried.",
            rich_help_panel="Output",
        ),
    ] = None


@command(
    example="""
compressor search resnet56_cifar -w resnet56.th -i 1x3x32x32 --macs 0.5 --memory 0.8 -e my_pkg.data:accuracy

compressor search my_pkg.net:build -i 1x3x224x224 --macs 0.5 -e my_pkg.data:accuracy --storage search.log
""",
)
def search(
    model: ModelOptions,
    inputs: InputOptions,
    evaluate: EvaluateOptions,
    budget: BudgetOptions,
    scorer: ScorerOptions,
    options: SearchOptions,
    out: PlanFileOptions,
    figure: FigureOptions,
    progress: Progress,
) -> Result:
    """Search for the ratios of all layers that keep most quality within a budget.

    It begins with what heuristics choose (by --sensitivity, too) and is never worse than the best of them by
    your function; look at the result on data that it has not seen. Writes the best plan, which apply cuts.
    Needs compressor[search].
    """
    if budget.steps != 1:
        raise typer.BadParameter("a search has no steps; leave it out", param_hint="--steps")
    plain = replace(budget, sensitivity=None)
    check_budget(plain)
    chosen = scorer_of(scorer, seed=model.seed)
    requirements = dict(map(_requirement, options.require or ()))
    check_file(out.out, "--out", overwrite=out.overwrite)
    check_file(options.frontier, "--frontier")
    check_figure(figure)
    check_evaluation(evaluate)
    curves = None if budget.sensitivity is None else Sensitivity.load(budget.sensitivity)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    warn_if_random(model)
    asked, name = evaluation_of(evaluate, net)
    graph = capture(net, *given.args, **given.kwargs)
    within = budget_for(graph, plain, progress)
    progress.say(f"searching within {within!r}")
    found = find(
        net,
        *given.args,
        evaluate=asked,
        name=name,
        budget=cast("CostFraction | All", within),  # `find` refuses others, and says what it takes
        scorer=chosen,
        sensitivity=curves,
        requirements=requirements,
        trials=options.trials,
        storage=options.storage,
        seed=model.seed,
        progress=not progress.quiet,
        **given.kwargs,
    )
    written = _write(found, out, options.frontier, figure.figure)
    lines = [found.plan.summary(), "", str(found), *(f"wrote {path}" for path in written)]
    data = {
        "model": graph.signature.model,
        "out": str(out.out),
        "quality": found.quality,
        "start": found.start,
        "original": found.frontier.points[0].quality,
        "trials": found.trials,
        "infeasible": found.infeasible,
        "verified": asdict(found.proof),
        "best": [{"name": p.name, "quality": p.quality, **p.costs} for p in found.frontier.best],
    }
    return Result("\n".join(lines), data)


def _write(found: Found, out: PlanFileOptions, frontier: Path | None, figure: Path | None) -> list[Path]:
    """The files that were written."""
    found.plan.save(out.out)
    written = [out.out]
    if frontier is not None:
        found.frontier.save(frontier)
        written.append(frontier)
    if figure is not None:
        save_frontier_figure(figure, found.frontier)
        written.append(figure)
    return written


def _requirement(text: str) -> tuple[str, Callable[[nn.Module], float]]:
    name, _, spec = text.partition("=")
    if not name or not spec:
        raise typer.BadParameter(
            f"{text!r} is not of the form NAME=MODULE:FUNCTION, such as recall=my_pkg.data:missing_recall",
            param_hint="--require",
        )
    return name, function_of(spec, "--require")
