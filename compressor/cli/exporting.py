"""The command `export onnx`: an ONNX file that is known to compute what the model computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from compressor.cli.command import Result, command
from compressor.cli.inputs import InputOptions, Inputs, example_inputs
from compressor.cli.model import ModelOptions, device_of
from compressor.cli.places import check_file
from compressor.cli.progress import Progress
from compressor.cli.saved import SavedOptions, build_or_load
from compressor.export import Exporter, OnnxReport
from compressor.export import onnx as export_onnx
from compressor.runtimes.examples import Axes

__all__ = ["ExportOptions", "axes_of", "onnx", "report_data", "write_onnx"]


@dataclass(frozen=True)
class ExportOptions:
    """What the file looks like."""

    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The ONNX file; an earlier one is replaced.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ]
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            "--dynamic",
            metavar="AXIS",
            help="Axis that stays free, by default 0, the batch. Repeatable: for images of any "
            "size --dynamic 0 --dynamic 2 --dynamic 3; with names --dynamic 0=batch --dynamic 4=time.",
            rich_help_panel="Output",
        ),
    ] = None
    fixed: Annotated[
        bool,
        typer.Option("--fixed", help="No axis stays free.", rich_help_panel="Output"),
    ] = False
    opset: Annotated[int, typer.Option("--opset", help="ONNX operator set.", rich_help_panel="Output")] = 18
    exporter: Annotated[
        Exporter | None,
        typer.Option(
            "--exporter",
            help="torch's exporter that writes the file; TorchScript is the older one, and quicker. By "
            "default the newer one, and where that fails the older one.",
            rich_help_panel="Output",
        ),
    ] = None


@command(
    example="compressor export onnx my_pkg.net:build --saved small/ -i 1x3x224x224 --out small.onnx",
)
def onnx(
    model: ModelOptions,
    saved: SavedOptions,
    inputs: InputOptions,
    options: ExportOptions,
    progress: Progress,
) -> Result:
    """Write a model as an ONNX file and check it with onnxruntime.

    The file is run on the example and on a second shape, and kept only if it agrees with torch both
    times. With --saved the smaller model of that folder is written. Needs compressor[onnx].
    """
    if options.fixed and options.dynamic:
        raise typer.BadParameter("--fixed leaves no axis free; drop one", param_hint="--dynamic")
    check_file(options.out, "--out", makes_folder=True)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build_or_load(model, saved)
    axes = () if options.fixed else axes_of(options.dynamic)
    report = write_onnx(
        net, given, options.out, progress, dynamic=axes, opset=options.opset, exporter=options.exporter
    )
    return Result(str(report), report_data(report))


def write_onnx(
    net: nn.Module,
    given: Inputs,
    path: Path,
    progress: Progress,
    *,
    dynamic: Axes = (0,),
    opset: int = 18,
    exporter: Exporter | None = None,
) -> OnnxReport:
    """The report of the export of `net` to `path`."""
    with progress.step(f"exporting to {path}"):
        return export_onnx(
            net, *given.args, path, kwargs=given.kwargs, dynamic=dynamic, opset=opset, exporter=exporter
        )


def axes_of(given: Sequence[str] | None) -> Axes:
    """The axes that stay free, with names where they have some; raises typer.BadParameter for what is none.

    >>> axes_of(None), axes_of(["0", "2"]), axes_of(["0=batch", "4=time"])
    ((0,), (0, 2), {0: 'batch', 4: 'time'})
    """
    parts = [text.partition("=") for text in given or ("0",)]
    named = any(equals for _, equals, _ in parts)
    if not all(axis.isdigit() and bool(equals) == named for axis, equals, _ in parts):
        raise typer.BadParameter(
            f"{' and '.join(given or ())}: axes are numbers such as 0, or numbers with names such as 4=time, "
            "all of them",
            param_hint="--dynamic",
        )
    if named:
        words: dict[int, str] = {int(axis): name for axis, _, name in parts}
        return words
    return tuple(int(axis) for axis, _, _ in parts)


def report_data(report: OnnxReport) -> dict[str, object]:
    """The report as plain data."""
    return {**asdict(report), "path": str(report.path), "exporter": report.exporter.value}
