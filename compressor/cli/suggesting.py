"""The commands `suggest widths` and `suggest kernels`: what the filters of a model say of its design."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from compressor.budget import Budget, Macs, Params
from compressor.cli.command import Result, command
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of, warn_if_random
from compressor.cli.places import check_file
from compressor.cli.progress import Progress
from compressor.design import suggest_kernels, suggest_widths

__all__ = ["KernelOptions", "WidthOptions", "suggest"]


@dataclass(frozen=True)
class WidthOptions:
    """For which cost, and where the plan goes."""

    macs: Annotated[
        float | None,
        typer.Option(
            "--macs",
            metavar="FRACTION",
            help="Widths in proportion to the ranks that leave this fraction of the multiply-accumulates; by "
            "default the ranks themselves.",
            rich_help_panel="Widths",
        ),
    ] = None
    params: Annotated[
        float | None,
        typer.Option(
            "--params",
            metavar="FRACTION",
            help="The same for the parameters.",
            rich_help_panel="Widths",
        ),
    ] = None
    round_to: Annotated[
        int,
        typer.Option("--round-to", min=1, help="Widths are multiples of this.", rich_help_panel="Widths"),
    ] = 1
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File for the plan that makes these widths, which apply cuts; an older one is replaced.",
            rich_help_panel="Output",
        ),
    ] = None


@dataclass(frozen=True)
class KernelOptions:
    """How much may be lost, and what is worth it."""

    discard: Annotated[
        float,
        typer.Option(
            "--discard",
            metavar="SHARE",
            help="Outer rings go that hold at most this share of a layer's squared weights.",
            rich_help_panel="Kernels",
        ),
    ] = 0.05
    least_saving: Annotated[
        float,
        typer.Option(
            "--least-saving",
            metavar="SHARE",
            help="Nothing is proposed that saves less than this share of a layer's MACs.",
            rich_help_panel="Kernels",
        ),
    ] = 0.1


@command(
    example="""
compressor suggest widths resnet56_cifar -w resnet56.th --input 1x3x32x32

compressor suggest widths my_pkg.net:build -i 1x3x224x224 --macs 0.5 --round-to 8 --out net.plan.json
"""
)
def widths(model: ModelOptions, inputs: InputOptions, options: WidthOptions, progress: Progress) -> Result:
    """How many channels each layer needs by the effective rank of its filters.

    A proposal of this library's, not a law: hold what comes out to an accuracy. Nothing is changed.
    """
    budget = _budget(options)
    check_file(options.out, "--out")
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    warn_if_random(model)
    with progress.step(f"measuring the ranks of {type(net).__name__}"):
        found = suggest_widths(net, *given.args, budget=budget, round_to=options.round_to, **given.kwargs)
    written = []
    if options.out is not None:
        found.plan.save(options.out)
        written.append(str(options.out))
    data = {
        "model": found.model,
        "budget": found.budget,
        "layers": [asdict(layer) for layer in found.layers],
        "macs": {"now": found.macs, "suggested": found.suggested_macs},
        "params": {"now": found.params, "suggested": found.suggested_params},
        "notes": list(found.notes),
        "files": written,
    }
    return Result("\n".join([str(found), *(f"wrote {name}" for name in written)]), data)


@command(example="compressor suggest kernels my_pkg.net:build -w net.safetensors --input 1x3x224x224")
def kernels(model: ModelOptions, inputs: InputOptions, options: KernelOptions, progress: Progress) -> Result:
    """Where smaller kernels would do, or a few that all filters of a layer share.

    Says how far the outputs move with all of it done and nothing trained. Nothing is changed: in Python,
    compressor.design.suggest_kernels(model, x).apply(model) makes the network.
    """
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    warn_if_random(model)
    with progress.step(f"measuring the kernels of {type(net).__name__}"):
        found = suggest_kernels(
            net, *given.args, discard=options.discard, least_saving=options.least_saving, **given.kwargs
        )
    layers: list[dict[str, Any]] = [
        {**vars(layer), "kernel_size": list(layer.kernel_size), "change": layer.change and repr(layer.change)}
        for layer in found.layers
    ]
    data = {
        "model": found.model,
        "layers": layers,
        "macs": {"now": found.macs, "suggested": found.suggested_macs},
        "output_error": found.output_error,
    }
    return Result(str(found), data)


def _budget(options: WidthOptions) -> Budget | None:
    if options.macs is not None and options.params is not None:
        raise typer.BadParameter("give one of --macs and --params, or neither", param_hint="--params")
    if options.macs is not None:
        return Macs(options.macs)
    return None if options.params is None else Params(options.params)


suggest = typer.Typer(
    help="See what the filters of a model say of its design: widths of layers, sizes of kernels.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for _command in (widths, kernels):
    _command.enter(suggest)
