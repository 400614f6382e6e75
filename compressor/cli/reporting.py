"""The command `report`: all that is known of a cut as one HTML file, or as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from compressor.cli.command import Result, command
from compressor.cli.cuts import Cut, PlanOptions, check_cut, cut_of
from compressor.cli.evaluating import function_of
from compressor.cli.inputs import InputOptions, Inputs, example_inputs
from compressor.cli.model import ModelOptions, device_of
from compressor.cli.places import check_file
from compressor.cli.progress import Progress
from compressor.cli.saved import SavedOptions
from compressor.cli.scorers import ScorerOptions, scorer_of
from compressor.core.capture import capture
from compressor.filters import FilterReport
from compressor.filters import report as filter_report
from compressor.persistence import unpruned
from compressor.profiling import Latency, latency
from compressor.reporting import report as make_report
from compressor.reporting.document import ENDINGS
from compressor.scoring import Scores, score
from compressor.search import Frontier, Sensitivity
from compressor.search.evaluating import measure

__all__ = ["ReportOptions", "report"]


@dataclass(frozen=True)
class ReportOptions:
    """What is measured for the report, and where it goes."""

    evaluate: Annotated[
        str | None,
        typer.Option(
            "--evaluate",
            "-e",
            metavar="MODULE:FUNCTION",
            help="Function of a model that returns one number, an accuracy say, asked of both models.",
            rich_help_panel="Report",
        ),
    ] = None
    latency: Annotated[
        bool,
        typer.Option(
            "--latency", help="Measure the time of both models in PyTorch.", rich_help_panel="Report"
        ),
    ] = False
    filters: Annotated[
        bool,
        typer.Option("--filters", help="Measure the filters of both models.", rich_help_panel="Report"),
    ] = False
    scores: Annotated[
        bool,
        typer.Option(
            "--scores",
            help="Show what channels are worth by --scorer, and from where on they stayed.",
            rich_help_panel="Report",
        ),
    ] = False
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            "--sensitivity",
            metavar="FILE",
            help="A sensitivity of MODEL, which the command sensitivity wrote.",
            rich_help_panel="Report",
        ),
    ] = None
    frontier: Annotated[
        Path | None,
        typer.Option(
            "--frontier",
            metavar="FILE",
            help="Quality and costs of several cuts, which the command search wrote.",
            rich_help_panel="Report",
        ),
    ] = None
    title: Annotated[str, typer.Option("--title", help="The title.", rich_help_panel="Report")] = ""
    markdown: Annotated[
        bool,
        typer.Option(
            "--markdown",
            help="Print the report as Markdown; then no file is written unless --out names one.",
            rich_help_panel="Output",
        ),
    ] = False
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The report, .html or .md by its ending, report.html by default; an older one is replaced.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ] = None


@command(
    example="""
compressor report my_pkg.net:build --saved small/ --input 1x3x224x224 --latency --filters

compressor report resnet56_cifar -w resnet56.th --plan net.plan.json -i 1x3x32x32 --markdown
""",
)
def report(
    model: ModelOptions,
    saved: SavedOptions,
    plan: PlanOptions,
    inputs: InputOptions,
    scorer: ScorerOptions,
    options: ReportOptions,
    progress: Progress,
) -> Result:
    """Write what was removed from a model, what that saves and what was proved, as one HTML file.

    The file needs no network, no scripts and no other files, and is readable on a phone. The cut is verified
    first. With --saved the model in that folder is reported on; with --plan alone, what the plan makes of
    MODEL.
    """
    check_cut(saved, plan, to="report on")
    if options.out is not None and options.out.suffix.lower() not in ENDINGS:
        raise typer.BadParameter(
            f"{str(options.out)!r}: a report is written as .html or .md", param_hint="--out"
        )
    check_file(options.out, "--out", makes_folder=True)
    if scorer != ScorerOptions() and not options.scores:
        raise typer.BadParameter("scores are shown with --scores only; add it", param_hint="--scorer")
    if options.evaluate is not None:
        function_of(options.evaluate, "--evaluate")
    by = scorer_of(scorer, seed=model.seed) if options.scores else None
    sensitivity = None if options.sensitivity is None else Sensitivity.load(options.sensitivity)
    frontier = None if options.frontier is None else Frontier.load(options.frontier)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    cut = cut_of(model, saved, plan)
    net, small = cut.original, cut.small
    scores: Scores | None = None
    if by is not None:
        with progress.step(f"scoring by {by}"):
            scores = score(capture(net, *given.args, **given.kwargs), by)
    quality = _quality(cut, options.evaluate, model.seed, progress)
    timed: list[Latency] = []
    if options.latency:
        with progress.step("measuring both models"):
            timed.append(latency(net, small, *given.args, kwargs=given.kwargs))
    measured = _filters(net, small, given, progress) if options.filters else None
    with progress.step("verifying and reporting"):
        found = make_report(
            net,
            small,
            *given.args,
            plan=cut.plan,
            quality=quality,
            latency=timed,
            scores=scores,
            sensitivity=sensitivity,
            frontier=frontier,
            filters=measured,
            title=options.title,
            **given.kwargs,
        )
    path = options.out or (None if options.markdown else Path("report.html"))
    written = [] if path is None else [str(found.write(path))]
    text = str(found) if options.markdown else found["summary"].markdown()
    lines = [text.rstrip("\n"), *(f"wrote {name}" for name in written)]
    return Result("\n".join(lines), {**found.to_dict(), "files": written})


def _quality(
    cut: Cut, spec: str | None, seed: int, progress: Progress
) -> dict[str, tuple[float, float]] | None:
    if spec is None:
        return None
    asked = function_of(spec, "--evaluate")
    found = []
    for model, words in ((cut.original, "the original"), (cut.small, "the small model")):
        with progress.step(f"evaluating {words}"):
            found.append(measure(model, unpruned(model), asked, where=words, seed=seed))
    return {spec.rpartition(":")[2]: (found[0], found[1])}


def _filters(
    net: nn.Module, small: nn.Module, given: Inputs, progress: Progress
) -> tuple[FilterReport, FilterReport]:
    with progress.step("measuring the filters of both models"):
        # In the order in which layers run; where a forward has inputs of both kinds, in that of the code.
        x = None if given.args and given.kwargs else given.args or given.kwargs
        return filter_report(net, x), filter_report(small, x)
