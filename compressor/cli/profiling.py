"""The command `profile`: what a model costs, layer by layer."""

from __future__ import annotations

from compressor.cli.command import Result, command
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, device_of
from compressor.cli.progress import Progress
from compressor.cli.saved import SavedOptions, build_or_load
from compressor.profiling import profile as profile_model

__all__ = ["profile"]


@command(
    example="""
compressor profile resnet56_cifar --input 1x3x32x32

compressor profile my_pkg.net:build --saved small/ --input 1x3x224x224 --json
""",
)
def profile(model: ModelOptions, saved: SavedOptions, inputs: InputOptions, progress: Progress) -> Result:
    """Show what a model costs: MACs, parameters and bytes of every layer.

    MACs are multiply-accumulates for the whole batch of the input; papers that say FLOPs mostly
    mean these. Any model that runs can be profiled.
    """
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build_or_load(model, saved)
    with progress.step(f"profiling {type(net).__name__}"):
        found = profile_model(net, *given.args, **given.kwargs)
    return Result(str(found), found.to_dict())
