"""The command `filters report`: what the filters of a model are like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.command import Result, command
from compressor.cli.filters.sources import SOURCE_HELP, ReadingOptions, Source, banks_of
from compressor.cli.inputs import InputOptions
from compressor.cli.places import check_file
from compressor.cli.progress import Progress
from compressor.filters import report_of
from compressor.whole_files import drafted

__all__ = ["ReportOptions", "report"]


@dataclass(frozen=True)
class ReportOptions:
    """Whose filters, and where the report goes."""

    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)]
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="FILE",
            help="Weights of the model: .safetensors, .pt or .pth.",
            rich_help_panel="Model",
        ),
    ] = None
    saved: Annotated[
        Path | None,
        typer.Option(
            "--saved",
            metavar="DIR",
            help="Folder of a pruned model, of which SOURCE is the original.",
            rich_help_panel="Model",
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.md",
            help="Write the whole table, with sparsities at every bound, as Markdown.",
            rich_help_panel="Output",
        ),
    ] = None
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures",
            metavar="DIR",
            help="Draw basis, coefficients, phenotypes and depth. Needs compressor[plots].",
            rich_help_panel="Output",
        ),
    ] = None


@command(
    example="""
compressor filters report resnet56_cifar --weights resnet56.th --input 1x3x32x32 --fold-batch-norm

compressor filters report net.onnx --figures figures/ --out filters.md
""",
)
def report(
    options: ReportOptions, reading: ReadingOptions, inputs: InputOptions, progress: Progress
) -> Result:
    """Measure the filters of a model, layer by layer, and say what stands out.

    Sparse kernels, shapes that repeat, layers that look random, dead and doubled filters: none of these is a
    measure of what a layer is worth, but each is worth a look before pruning and after it.
    """
    check_file(options.out, "--out")
    source = Source(options.source, options.weights, options.saved, inputs)
    with progress.step(f"measuring the filters of {options.source}"):
        found = report_of(banks_of(source, reading), model=options.source)
    written: list[Path] = []
    if options.figures is not None:
        with progress.step(f"drawing into {options.figures}"):
            written = list(found.figures(options.figures))
    if options.out is not None:
        with drafted(options.out, what=f"the report {str(options.out)!r}") as draft:
            draft.write_text(found.to_markdown(), encoding="utf-8")
        written.append(options.out)
    data = {**found.to_dict(), "files": [str(path) for path in written]}
    return Result("\n".join([str(found), *map(str, written)]), data)
