"""The command `bench-page`: models side by side on a page for phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from compressor.cli.command import Result, command
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.progress import Progress
from compressor.export import bench_page as write_page

__all__ = ["BenchOptions", "bench_page"]


@dataclass(frozen=True)
class BenchOptions:
    """Which models, and what the page is like."""

    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="The folder of the page; an earlier page is replaced. With --single-file an .html file.",
            show_default=False,
        ),
    ]
    models: Annotated[
        list[Path],
        typer.Option(
            "--models",
            "-m",
            metavar="FILE...",
            help="The ONNX files, the baseline first.",
            rich_help_panel="Page",
            show_default=False,
        ),
    ]
    single_file: Annotated[
        bool,
        typer.Option(
            "--single-file",
            help="Pack everything into one HTML file, which needs no server.",
            rich_help_panel="Page",
        ),
    ] = False
    rounds: Annotated[
        int,
        typer.Option("--rounds", min=1, help="Rounds that the page proposes.", rich_help_panel="Page"),
    ] = 120
    title: Annotated[str, typer.Option("--title", help="Heading of the page.", rich_help_panel="Page")] = (
        "Model bench"
    )
    seed: Annotated[
        int,
        typer.Option("--seed", help="Of the random inputs.", rich_help_panel="Inputs"),
    ] = 0


@command(
    example="""compressor bench-page out/ --models base.onnx small.onnx small.int8.onnx
compressor bench-page bench.html --single-file --models base.onnx small.onnx --input-file images.npy""",
    many=("--models", "-m"),
)
def bench_page(options: BenchOptions, inputs: InputOptions, progress: Progress) -> Result:
    """Write a page that times ONNX files side by side in the browser of a phone.

    It shows time, speed-up over the first model, memory, file size and agreement of the predictions, needs
    no network, and saves its results as JSON. Models run on random inputs of their own shape unless
    --input or --input-file says otherwise; the first axis counts samples. Needs compressor[onnx], and
    once npm, which fetches onnxruntime-web.
    """
    given = _given(inputs, options.seed)
    with progress.step(f"writing {options.out}"):
        page = write_page(
            options.out,
            options.models,
            inputs=given,
            seed=options.seed,
            rounds=options.rounds,
            single_file=options.single_file,
            title=options.title,
        )
    return Result(str(page), {**asdict(page), "path": str(page.path)})


def _given(inputs: InputOptions, seed: int) -> Sequence[Tensor] | Mapping[str, Tensor] | None:
    if not inputs.input and not inputs.input_file:
        return None
    found = example_inputs(inputs, seed=seed, device=torch.device("cpu"))
    if found.args and found.kwargs:
        raise typer.BadParameter("name all inputs or none", param_hint="--input")
    return found.kwargs or found.args
