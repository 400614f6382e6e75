"""The command `verify`: the proof that a smaller model is what its plan says."""

from __future__ import annotations

from dataclasses import asdict

from compressor.cli.command import Result, command
from compressor.cli.cuts import PlanOptions, check_cut, cut_of
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, device_of
from compressor.cli.progress import Progress
from compressor.cli.saved import SavedOptions
from compressor.core.verify import verify as verify_model

__all__ = ["verify"]


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
    check_cut(saved, plan, to="verify")
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    cut = cut_of(model, saved, plan)
    with progress.step(f"verifying {type(cut.original).__name__}"):
        report = verify_model(cut.original, cut.small, cut.plan, *given.args, **given.kwargs)
    return Result(str(report), {"verified": True, **asdict(report)})
