"""The command `plan`: decide what to remove, and write it down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.budget_options import BudgetOptions
from compressor.cli.command import Result, command
from compressor.cli.deciding import check_choice, decide
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of, warn_if_random
from compressor.cli.places import check_file
from compressor.cli.progress import Progress
from compressor.cli.scorers import ScorerOptions
from compressor.core.capture import capture
from compressor.profiling import Costs, costs
from compressor.tables import aligned

__all__ = ["PlanFileOptions", "plan"]


@dataclass(frozen=True)
class PlanFileOptions:
    """Where the plan goes."""

    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE", help="File for the plan.", rich_help_panel="Output"),
    ] = Path("net.plan.json")
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a plan written before.", rich_help_panel="Output"),
    ] = False


@command(
    example="""
compressor plan resnet56_cifar -w resnet56.th -i 1x3x32x32 --macs 0.5 --ignore conv1

compressor apply resnet56_cifar -w resnet56.th --plan net.plan.json --out small/
""",
)
def plan(
    model: ModelOptions,
    inputs: InputOptions,
    budget: BudgetOptions,
    scorer: ScorerOptions,
    out: PlanFileOptions,
    progress: Progress,
) -> Result:
    """Decide which channels go, write it to a file, and change nothing else.

    A plan is a readable list of cuts. `apply` cuts a model as it says, as often as you like, also
    after you trained the model further.
    """
    check_choice(scorer, budget)
    check_file(out.out, "--out", overwrite=out.overwrite)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    warn_if_random(model)
    with progress.step(f"capturing {type(net).__name__}"):
        graph = capture(net, *given.args, **given.kwargs)
    chosen, _ = decide(graph, scorer, budget, seed=model.seed, progress=progress)
    before, after = costs(graph), costs(graph, chosen)
    chosen.save(out.out)
    data = {
        "model": graph.signature.model,
        "out": str(out.out),
        "note": chosen.note,
        "cuts": len(chosen.cuts),
        "sizes": len(chosen.sizes),
        "before": asdict(before),
        "after": asdict(after),
    }
    lines = [chosen.summary(), "", *_left(before, after), "", f"wrote {out.out}"]
    return Result("\n".join(lines), data)


def _left(before: Costs, after: Costs) -> list[str]:
    rows = [["", "before", "after", "left"]]
    for words, old, new in (
        ("MACs", before.macs, after.macs),
        ("parameters", before.params, after.params),
        ("weight bytes", before.weight_bytes, after.weight_bytes),
        ("activation bytes", before.activation_bytes, after.activation_bytes),
        ("peak activation bytes", before.peak_activation_bytes, after.peak_activation_bytes),
    ):
        rows.append([words, f"{old:,}", f"{new:,}", f"{new / old:.1%}" if old else "-"])
    return aligned(rows)
