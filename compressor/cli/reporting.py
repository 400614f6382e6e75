"""The command `report`: all that is known of a cut as one HTML file, or as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from compressor.cli.command import Result, command
from compressor.cli.inputs import InputOptions, Inputs, example_inputs
from compressor.cli.model import ModelOptions, build, device_of
from compressor.cli.progress import Progress
from compressor.cli.saved import SavedOptions, load_saved
from compressor.cli.scorers import ScorerOptions, scorer_of
from compressor.cli.verifying import PlanOptions
from compressor.core.capture import capture
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.filters import FilterReport
from compressor.filters import report as filter_report
from compressor.profiling import Latency, latency
from compressor.reporting import report as make_report
from compressor.reporting.document import ENDINGS
from compressor.scoring import Scores, score
from compressor.search import Frontier, Sensitivity

__all__ = ["ReportOptions", "report"]


@dataclass(frozen=True)
class ReportOptions:
    """What is measured for the report, and where it goes."""

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
            help="A sensitivity of MODEL, saved by the library (compressor.search).",
            rich_help_panel="Report",
        ),
    ] = None
    frontier: Annotated[
        Path | None,
        typer.Option(
            "--frontier",
            metavar="FILE",
            help="Quality and costs of several cuts, saved by the library (compressor.search).",
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
    if saved.saved is None and plan.plan is None:
        raise typer.BadParameter(
            "say what to report on: --saved DIR, --plan FILE, or both", param_hint="--saved"
        )
    if options.out is not None and options.out.suffix.lower() not in ENDINGS:
        raise typer.BadParameter(
            f"{str(options.out)!r}: a report is written as .html or .md", param_hint="--out"
        )
    if scorer != ScorerOptions() and not options.scores:
        raise typer.BadParameter("scores are shown with --scores only; add it", param_hint="--scorer")
    by = scorer_of(scorer, seed=model.seed) if options.scores else None
    sensitivity = None if options.sensitivity is None else Sensitivity.load(options.sensitivity)
    frontier = None if options.frontier is None else Frontier.load(options.frontier)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    cuts = Plan.load(saved.saved / "plan.json" if plan.plan is None else plan.plan)  # type: ignore[operator]
    small = apply(net, cuts) if saved.saved is None else load_saved(model, saved.saved)
    scores: Scores | None = None
    if by is not None:
        with progress.step(f"scoring by {by}"):
            scores = score(capture(net, *given.args, **given.kwargs), by)
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
            plan=cuts,
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


def _filters(
    net: nn.Module, small: nn.Module, given: Inputs, progress: Progress
) -> tuple[FilterReport, FilterReport]:
    with progress.step("measuring the filters of both models"):
        # In the order in which layers run; where a forward has inputs of both kinds, in that of the code.
        x = None if given.args and given.kwargs else given.args or given.kwargs
        return filter_report(net, x), filter_report(small, x)
