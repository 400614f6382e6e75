"""The commands that ask how good a result is: `sensitivity` of every group, and `search` for ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, cast

import typer
from torch import nn

from compressor.budget import All
from compressor.budget.cost_fraction import CostFraction
from compressor.cli.batches import batches_of
from compressor.cli.budgets import BudgetOptions, check_budget
from compressor.cli.command import Result, command
from compressor.cli.deciding import budget_for
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of, warn_if_random
from compressor.cli.objects import find_object
from compressor.cli.planning import PlanFileOptions, check_writable, save_plan
from compressor.cli.progress import Progress
from compressor.cli.scorers import ScorerOptions, scorer_of
from compressor.core.capture import capture
from compressor.errors import FileError
from compressor.reporting import save_frontier_figure, save_sensitivity_figure
from compressor.search import Evaluate, OutputFidelity, Sensitivity, find
from compressor.search import sensitivity as measure_sensitivity
from compressor.search.curves import check_drop

__all__ = ["search", "sensitivity"]


@dataclass(frozen=True)
class EvaluateOptions:
    """What is asked of every cut model."""

    evaluate: Annotated[
        str | None,
        typer.Option(
            "--evaluate",
            "-e",
            metavar="MODULE:FUNCTION",
            help="Function of a model that returns one number, larger = better: an accuracy on images that "
            "were not trained on.",
            rich_help_panel="Evaluation (one of the two)",
        ),
    ] = None
    fidelity: Annotated[
        str | None,
        typer.Option(
            "--fidelity",
            metavar="MODULE:FUNCTION",
            help="Function without arguments that returns batches: how much of the original's outputs on "
            "them is still there, for want of labels.",
            rich_help_panel="Evaluation (one of the two)",
        ),
    ] = None


@dataclass(frozen=True)
class SensitivityOptions:
    """What is measured, and where it goes."""

    ratios: Annotated[
        list[float] | None,
        typer.Option(
            "--ratios",
            metavar="RATIO",
            help="Removed shares to measure; by default 0.1 to 0.9.",
            rich_help_panel="Measurement",
        ),
    ] = None
    groups: Annotated[
        list[str] | None,
        typer.Option(
            "--groups",
            metavar="PATTERN",
            help="Only the groups that these layers write; by default all.",
            rich_help_panel="Measurement",
        ),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FILE",
            help="Keeps every measurement when it is done; the same command goes on from there.",
            rich_help_panel="Measurement",
        ),
    ] = None
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, help="Processes that measure.", rich_help_panel="Measurement"),
    ] = 1
    max_drop: Annotated[
        float,
        typer.Option(
            "--max-drop",
            help="Show what each group alone can lose before the quality falls by more.",
            rich_help_panel="Output",
        ),
    ] = 0.01
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="JSON file for the curves; plan, prune and search take it as --sensitivity.",
            rich_help_panel="Output",
        ),
    ] = None
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="A picture of them.", rich_help_panel="Output"),
    ] = None


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
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="A picture of them.", rich_help_panel="Output"),
    ] = None


@command(
    example="""
compressor sensitivity resnet56_cifar -w resnet56.th -i 1x3x32x32 -e my_pkg.data:accuracy -o s.json

compressor sensitivity my_pkg.net:build -i 1x3x224x224 --fidelity my_pkg.data:images --ratios 0.3 0.6
""",
    many=("--ratios", "--groups"),
)
def sensitivity(
    model: ModelOptions,
    inputs: InputOptions,
    evaluate: EvaluateOptions,
    scorer: ScorerOptions,
    options: SensitivityOptions,
    progress: Progress,
) -> Result:
    """How far quality falls when each group of channels alone is cut.

    Your function is called with a copy of the model for every group and ratio. Nothing is removed: give the
    result to plan or prune as --sensitivity, together with the budgets to meet.
    """
    check_drop(options.max_drop)
    chosen = scorer_of(scorer, seed=model.seed)
    _check_places(options.out, options.figure)
    _check_evaluate(evaluate)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    warn_if_random(model)
    asked, name = _asked(evaluate, net)
    _say("measuring the sensitivity of each group", progress)
    found = measure_sensitivity(
        net,
        *given.args,
        evaluate=asked,
        name=name,
        scorer=chosen,
        groups=options.groups,
        cache=options.cache,
        workers=options.workers,
        seed=model.seed,
        progress=not progress.quiet,
        **({} if options.ratios is None else {"ratios": options.ratios}),
        **given.kwargs,
    )
    lines = [str(found), "", *_tolerated(found, options.max_drop)]
    if options.out is not None:
        found.save(options.out)
        lines.append(f"wrote {options.out}")
    if options.figure is not None:
        save_sensitivity_figure(options.figure, found)
        lines.append(f"wrote {options.figure}")
    tolerated = found.tolerated(max_drop=options.max_drop)
    return Result("\n".join(lines), {**found.to_dict(), "max_drop": options.max_drop, "tolerated": tolerated})


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
    progress: Progress,
) -> Result:
    """Search for the ratios of all layers that keep most quality within a budget.

    It begins with what heuristics choose (by --sensitivity, too) and is never worse than the best of them by
    your function; look at the result on data that it has not seen. Writes the best plan, which apply cuts.
    """
    if budget.steps != 1:
        raise typer.BadParameter("a search has no steps; leave it out", param_hint="--steps")
    plain = replace(budget, sensitivity=None)
    check_budget(plain)
    chosen = scorer_of(scorer, seed=model.seed)
    requirements = dict(map(_requirement, options.require or ()))
    check_writable(out)
    _check_places(options.frontier, options.figure)
    _check_evaluate(evaluate)
    curves = None if budget.sensitivity is None else Sensitivity.load(budget.sensitivity)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    warn_if_random(model)
    asked, name = _asked(evaluate, net)
    graph = capture(net, *given.args, **given.kwargs)
    within = budget_for(graph, plain, progress)
    _say(f"searching within {within!r}", progress)
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
    save_plan(found.plan, out.out)
    lines = [found.plan.summary(), "", str(found), f"wrote {out.out}"]
    if options.frontier is not None:
        found.frontier.save(options.frontier)
        lines.append(f"wrote {options.frontier}")
    if options.figure is not None:
        save_frontier_figure(options.figure, found.frontier)
        lines.append(f"wrote {options.figure}")
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


def _say(text: str, progress: Progress) -> None:
    """A step without a spinner, which would run into the bar that the step draws."""
    if not progress.quiet:
        typer.echo(text, err=True)


def _check_evaluate(options: EvaluateOptions) -> None:
    if (options.evaluate is None) == (options.fidelity is None):
        raise typer.BadParameter(
            "give a function of a model that says how good it is, --evaluate package.module:function, or "
            "--fidelity with a function that returns batches (one of the two)",
            param_hint="--evaluate",
        )
    if options.evaluate is not None:
        _function(options.evaluate, "--evaluate")
    else:
        assert options.fidelity is not None
        batches_of(options.fidelity, option="--fidelity")


def _asked(options: EvaluateOptions, net: nn.Module) -> tuple[Evaluate, str]:
    """The evaluation and its name."""
    if options.evaluate is not None:
        return _function(options.evaluate, "--evaluate"), options.evaluate
    assert options.fidelity is not None
    batches = batches_of(options.fidelity, option="--fidelity")
    return OutputFidelity(net, batches), f"fidelity on {options.fidelity}"


def _function(spec: str, option: str) -> Callable[[nn.Module], float]:
    found = find_object(spec, option=option)
    if not callable(found) or isinstance(found, type):
        raise typer.BadParameter(
            f"{spec!r} is of type {type(found).__name__}: expected a function of a model", param_hint=option
        )
    return found


def _requirement(text: str) -> tuple[str, Callable[[nn.Module], float]]:
    name, _, spec = text.partition("=")
    if not name or not spec:
        raise typer.BadParameter(
            f"{text!r} is not of the form NAME=MODULE:FUNCTION, such as recall=my_pkg.data:missing_recall",
            param_hint="--require",
        )
    return name, _function(spec, "--require")


def _check_places(*files: Path | None) -> None:
    for file in files:
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise FileError(f"{str(file)!r}: expected a file in a folder that exists")


def _tolerated(found: Sensitivity, max_drop: float) -> Sequence[str]:
    ratios: Mapping[str, float] = found.tolerated(max_drop=max_drop)
    width = max(map(len, ratios))
    lines = [f"{name:<{width}}  {ratio:.3g}" for name, ratio in ratios.items()]
    return [f"the most each can lose alone before the quality falls by more than {max_drop:g}:", *lines]
