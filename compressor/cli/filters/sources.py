"""Where filters come from on the command line: a model, an ONNX file or a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of
from compressor.cli.saved import load_saved
from compressor.core.capture import capture
from compressor.errors import InputError
from compressor.filters import FilterBank, Store, banks, banks_of_onnx

__all__ = ["ReadingOptions", "Source", "banks_of", "kernel_size_of", "store_of"]

SOURCE_HELP = (
    "A model (package.module:attribute, or a name such as resnet56_cifar), an .onnx file, or the folder of a "
    "store that `extract` wrote."
)


@dataclass(frozen=True)
class ReadingOptions:
    """How filters are read off whatever they are in."""

    fold_batch_norm: Annotated[
        bool,
        typer.Option(
            "--fold-batch-norm",
            help="Multiply filters by the scale of the batch norm behind them, as exports do. Needs --input.",
            rich_help_panel="Filters",
        ),
    ] = False
    kernel_size: Annotated[
        str | None,
        typer.Option(
            "--kernel-size",
            metavar="SIZE",
            help="Only kernels of this size: 3x3, 7x7, 5, 3x3x3. Without it all of them.",
            rich_help_panel="Filters",
        ),
    ] = None
    device: Annotated[
        str,
        typer.Option("--device", help="Where to measure: cpu, cuda, mps.", rich_help_panel="Model"),
    ] = "cpu"
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of random weights.", rich_help_panel="Model")
    ] = 0


@dataclass(frozen=True)
class Source:
    """One thing with filters in it; `weights` and `saved` are for models only."""

    text: str
    weights: Path | None = None
    saved: Path | None = None
    inputs: InputOptions = field(default_factory=InputOptions)

    @property
    def is_onnx(self) -> bool:
        """Whether it is an ONNX file, by its name."""
        return self.text.endswith(".onnx")

    @property
    def is_store(self) -> bool:
        """Whether it is a folder: that of a store."""
        return Path(self.text).is_dir()

    @property
    def is_model(self) -> bool:
        """Whether it is neither: a model that is built."""
        return not (self.is_onnx or self.is_store)


def kernel_size_of(text: str | None) -> tuple[int, ...] | None:
    """The size that was named, (3, 3) for "3x3"; raises typer.BadParameter for what is none.

    >>> kernel_size_of("3x3"), kernel_size_of("5"), kernel_size_of(None)
    ((3, 3), (5,), None)
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) for part in parts) or len(parts) > 3:
        raise typer.BadParameter(
            f"{text!r} is no kernel size such as 3x3, 5 or 3x3x3", param_hint="--kernel-size"
        )
    return tuple(map(int, parts))


def banks_of(source: Source, options: ReadingOptions) -> Sequence[FilterBank]:
    """The filters of a source, layer by layer.

    Raises typer.BadParameter for options that the kind of source does not take, and the errors of `banks`,
    `banks_of_onnx` and `Store`.
    """
    size = kernel_size_of(options.kernel_size)
    if source.is_model:
        return _of_model(source, options, size)
    _refuse_model_options(source, options)
    if source.is_store:
        return tuple(store_of(source, size).banks())
    return banks_of_onnx(source.text, kernel_size=size)


def _of_model(source: Source, options: ReadingOptions, size: tuple[int, ...] | None) -> Sequence[FilterBank]:
    model = ModelOptions(source.text, source.weights, options.device, options.seed)
    net = build(model) if source.saved is None else load_saved(model, source.saved)
    graph = None
    if source.inputs.input or source.inputs.input_file:
        given = example_inputs(source.inputs, seed=options.seed, device=device_of(model))
        graph = capture(net, *given.args, **given.kwargs)
    elif options.fold_batch_norm:
        raise typer.BadParameter(
            "which batch norm follows which convolution is seen only where the model runs: give its --input",
            param_hint="--fold-batch-norm",
        )
    return banks(
        net, graph, kernel_size=size, fold_batch_norm=options.fold_batch_norm, model_name=source.text
    )


def store_of(source: Source, size: tuple[int, ...] | None) -> Store:
    """The store of a source; raises InputError where it holds kernels of another size than was named."""
    store = Store.open(source.text)
    if size not in (None, store.kernel_size):
        held = "x".join(map(str, store.kernel_size))
        raise InputError(f"{source.text} holds kernels of {held}; leave --kernel-size out")
    return store


def _refuse_model_options(source: Source, options: ReadingOptions) -> None:
    for given, name in (
        (source.weights is not None, "--weights"),
        (source.saved is not None, "--saved"),
        (bool(source.inputs.input or source.inputs.input_file), "--input"),
        (options.fold_batch_norm, "--fold-batch-norm"),
    ):
        if given:
            raise typer.BadParameter(
                f"{source.text} is no model: its filters are as they were written", param_hint=name
            )
