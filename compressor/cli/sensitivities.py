"""The command `sensitivity`: how far quality falls when one group of channels alone is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.command import Result, command
from compressor.cli.evaluating import EvaluateOptions, check_evaluation, evaluation_of
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of, warn_if_random
from compressor.cli.places import FigureOptions, check_figure, check_file
from compressor.cli.progress import Progress
from compressor.cli.scorers import ScorerOptions, scorer_of
from compressor.reporting import save_sensitivity_figure
from compressor.search import Sensitivity
from compressor.search import sensitivity as measure_sensitivity
from compressor.search.curves import check_drop

__all__ = ["SensitivityOptions", "sensitivity"]


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
    figure: FigureOptions,
    progress: Progress,
) -> Result:
    """How far quality falls when each group of channels alone is cut.

    Your function is called with a copy of the model for every group and ratio. Nothing is removed: give the
    result to plan or prune as --sensitivity, together with the budgets to meet.
    """
    check_drop(options.max_drop)
    chosen = scorer_of(scorer, seed=model.seed)
    check_file(options.out, "--out")
    check_figure(figure)
    check_evaluation(evaluate)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    warn_if_random(model)
    asked, name = evaluation_of(evaluate, net)
    progress.say("measuring the sensitivity of each group")
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
    if figure.figure is not None:
        save_sensitivity_figure(figure.figure, found)
        lines.append(f"wrote {figure.figure}")
    tolerated = found.tolerated(max_drop=options.max_drop)
    return Result("\n".join(lines), {**found.to_dict(), "max_drop": options.max_drop, "tolerated": tolerated})


def _tolerated(found: Sensitivity, max_drop: float) -> Sequence[str]:
    ratios = found.tolerated(max_drop=max_drop)
    width = max(map(len, ratios))
    lines = [f"{name:<{width}}  {ratio:.3g}" for name, ratio in ratios.items()]
    return [f"the most each can lose alone before the quality falls by more than {max_drop:g}:", *lines]
