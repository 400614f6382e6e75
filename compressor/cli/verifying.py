"""The command `verify`: the proof that a smaller model is what its plan says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.command import Result, command
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of
from compressor.cli.progress import Progress
from compressor.cli.saved import SavedOptions, load_saved
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.core.verify import verify as verify_model

__all__ = ["PlanOptions", "verify"]


@dataclass(frozen=True)
class PlanOptions:
    """A plan file."""

    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="A plan; with --saved instead of the plan in that folder.",
            rich_help_panel="Model",
        ),
    ] = None


@command(
    example="""
compressor verify my_pkg.net:build --saved small/ --input 1x3x224x224

compressor verify my_pkg.net:build --plan net.plan.json --input 1x3x224x224
""",
)
def verify(
    model: ModelOptions,
    saved: SavedOptions,
    plan: PlanOptions,
    inputs: InputOptions,
    progress: Progress,
) -> Result:
    """Prove that a smaller model computes what its plan makes of the original.

    In float64 and with scrambled weights, the original with every reader of a removed channel
    silenced must equal the smaller model. With --saved, that folder is proved; with --plan alone,
    what the plan makes of MODEL. Weights that were trained since do not matter.
    """
    if saved.saved is None and plan.plan is None:
        raise typer.BadParameter(
            "say what to verify: --saved DIR, --plan FILE, or both", param_hint="--saved"
        )
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    small = None if saved.saved is None else load_saved(model, saved.saved)
    file = plan.plan if plan.plan is not None else saved.saved / "plan.json"  # type: ignore[operator]
    cuts = Plan.load(file)
    with progress.step(f"verifying {type(net).__name__}"):
        small = apply(net, cuts) if small is None else small
        report = verify_model(net, small, cuts, *given.args, **given.kwargs)
    return Result(str(report), {"verified": True, "plan": str(file), **asdict(report)})
