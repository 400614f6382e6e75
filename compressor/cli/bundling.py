"""The command `export mobile`: all that an app needs of a model, in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.batches import batches_of
from compressor.cli.command import Result, command
from compressor.cli.exporting import axes_of
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of
from compressor.cli.progress import Progress
from compressor.cli.saved import SavedOptions, build_or_load
from compressor.errors import FileError
from compressor.export import Metadata
from compressor.export import mobile as export_mobile

__all__ = ["BundleOptions", "mobile"]


@dataclass(frozen=True)
class BundleOptions:
    """What the folder holds."""

    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="The folder; an earlier bundle in it is replaced.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ]
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            metavar="MODULE:FUNCTION",
            help="Also write int8 files, with ranges measured on the batches that this function without "
            "arguments returns.",
            rich_help_panel="int8",
        ),
    ] = None
    held_out: Annotated[
        str | None,
        typer.Option(
            "--held-out",
            metavar="MODULE:FUNCTION",
            help="Batches to compare the files on; with labels, their accuracy is shown.",
            rich_help_panel="int8",
        ),
    ] = None
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Hold everything against the original, MODEL, of which --saved is the smaller one.",
            rich_help_panel="Bench page",
        ),
    ] = False
    no_page: Annotated[
        bool,
        typer.Option("--no-page", help="Leave the bench page out.", rich_help_panel="Bench page"),
    ] = False
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            "--dynamic",
            metavar="AXIS",
            help="Axis that stays free in model.onnx, by default 0, the batch. Repeatable; named: 4=time.",
            rich_help_panel="Output",
        ),
    ] = None
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="Names of the classes, one on each line, for the files' metadata.",
            rich_help_panel="Metadata",
        ),
    ] = None
    mean: Annotated[
        list[float] | None,
        typer.Option(
            "--mean",
            help="Mean of a channel that the app subtracts; once for each channel.",
            rich_help_panel="Metadata",
        ),
    ] = None
    std: Annotated[
        list[float] | None,
        typer.Option(
            "--std",
            help="Standard deviation that the app divides by; once for each channel.",
            rich_help_panel="Metadata",
        ),
    ] = None


@command(
    example="""compressor export mobile my_pkg.net:build --saved small/ -i 1x3x224x224 --out bundle/
compressor export mobile my_pkg.net:build --saved small/ -i 1x3x224x224 --out bundle/
 --calibration my_pkg.data:images --baseline --mean 0.5 --std 0.25""",
)
def mobile(
    model: ModelOptions,
    saved: SavedOptions,
    inputs: InputOptions,
    options: BundleOptions,
    progress: Progress,
) -> Result:
    """Write all that an app needs of a model into one folder, every file checked.

    ONNX, int8 (with --calibration), .ort, a bench page for the phone, and a manifest with checksums,
    shapes and agreement. Needs compressor[onnx], and once npm, which fetches onnxruntime-web.
    """
    if options.baseline and saved.saved is None:
        raise typer.BadParameter(
            "say which model is smaller than MODEL with --saved", param_hint="--baseline"
        )
    metadata = Metadata(classes=_classes(options.classes), mean=options.mean, std=options.std)
    dynamic = axes_of(options.dynamic)
    batches = {
        name: batches_of(spec, option=f"--{name.replace('_', '-')}")
        for name, spec in (("calibration", options.calibration), ("held_out", options.held_out))
        if spec is not None
    }
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build_or_load(model, saved)
    with progress.step(f"writing {options.out}") as detail:
        found = export_mobile(
            net,
            *given.args,
            options.out,
            kwargs=given.kwargs,
            baseline=build(model) if options.baseline else None,
            metadata=metadata,
            dynamic=dynamic,
            page=not options.no_page,
            progress=detail,
            calibration=batches.get("calibration"),
            held_out=batches.get("held_out"),
        )
    comparison = found.comparison
    rows = [
        {**asdict(row), "path": str(row.path), "speedup": timing.speedup, "ms": timing.ms}
        for row, timing in zip(comparison.rows, comparison.latency.timings, strict=True)
    ]
    return Result(str(found), {"folder": str(found.folder), "files": dict(found.files), "comparison": rows})


def _classes(path: Path | None) -> Sequence[str]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"--classes {str(path)!r} cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]
