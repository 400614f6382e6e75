"""The command `filters compare`: how far the filters of two models are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.command import Result, command
from compressor.cli.filters.drifts import HEAD, cells, plain
from compressor.cli.filters.groups import compare_groups, is_sketch
from compressor.cli.filters.sources import SOURCE_HELP, ReadingOptions, Source, banks_of
from compressor.cli.inputs import InputOptions
from compressor.cli.progress import Progress
from compressor.errors import InputError
from compressor.filters import Basis, FilterBank, LayerDrifts, drift
from compressor.filters import compare as compare_layers
from compressor.tables import aligned

__all__ = ["CompareOptions", "compare"]


@dataclass(frozen=True)
class CompareOptions:
    """What to compare with what."""

    before: Annotated[
        str,
        typer.Argument(metavar="BEFORE", help=SOURCE_HELP + " Or a file of sketches.", show_default=False),
    ]
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="AFTER",
            help="The same kinds. Without it BEFORE once more, with --after-weights or --after-saved.",
            show_default=False,
        ),
    ] = None
    weights: Annotated[
        Path | None,
        typer.Option("--weights", "-w", metavar="FILE", help="Weights of BEFORE.", rich_help_panel="Model"),
    ] = None
    after_weights: Annotated[
        Path | None,
        typer.Option("--after-weights", metavar="FILE", help="Weights of AFTER.", rich_help_panel="Model"),
    ] = None
    after_saved: Annotated[
        Path | None,
        typer.Option(
            "--after-saved",
            metavar="DIR",
            help="Folder of a pruned model, of which AFTER is the original.",
            rich_help_panel="Model",
        ),
    ] = None
    basis: Annotated[
        Path | None,
        typer.Option(
            "--basis",
            metavar="FILE",
            help="The basis of `sketch --basis-out`, so that numbers of several runs compare. Without it the "
            "principal axes of both sides together.",
            rich_help_panel="Filters",
        ),
    ] = None
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="COLUMN",
            help="Compare the groups within one file of sketches: model, or a column of its meta data.",
            rich_help_panel="Filters",
        ),
    ] = None


@command(
    example="""
compressor filters compare resnet56_cifar -w resnet56.th --after-saved small/

compressor filters compare sketches.parquet --by task
""",
)
def compare(
    options: CompareOptions, reading: ReadingOptions, inputs: InputOptions, progress: Progress
) -> Result:
    """Show how far the filters of two models are apart, as a whole and layer by layer.

    D is the weighted symmetric divergence of CNN Filter DB; every value stands beside what two samples of one
    distribution of these sizes would have by chance. Kernels of zeros are left out and counted.
    """
    basis = None if options.basis is None else Basis.load(options.basis)
    if is_sketch(options.before):
        return compare_groups(options.before, options.after, by=options.by, basis=basis)
    if options.by is not None:
        raise typer.BadParameter("groups are those of a file of sketches", param_hint="--by")
    before, after = _sides(options, reading, inputs)
    with progress.step(f"comparing {options.before} with {options.after or 'its other weights'}"):
        sides = banks_of(*before), banks_of(*after)
        whole = _whole(sides[0], sides[1], basis)
        stored = before[0].is_store or after[0].is_store
        layers = None if stored else compare_layers(sides[0], sides[1], basis=basis)
    text = "\n".join(aligned([["networks as a whole", *HEAD], *(row for _, row in whole)]))
    if layers is not None:
        text += f"\n\n{layers}"
    return Result(text, {"whole": [data for data, _ in whole], "layers": _rows(layers)})


Side = tuple[Source, ReadingOptions]


def _sides(options: CompareOptions, reading: ReadingOptions, inputs: InputOptions) -> tuple[Side, Side]:
    if options.after is None and options.after_weights is None and options.after_saved is None:
        raise typer.BadParameter(
            "there is one side only: give AFTER, --after-weights or --after-saved", param_hint="AFTER"
        )
    before = Source(options.before, options.weights, inputs=inputs)
    after = Source(options.after or options.before, options.after_weights, options.after_saved, inputs)
    if not (before.is_model or after.is_model):
        return (before, reading), (after, reading)
    return _side(before, reading), _side(after, reading)


def _side(source: Source, reading: ReadingOptions) -> Side:
    """Beside a model, inputs and folding are the model's: files have their norms folded, or not, already."""
    if source.is_model:
        return source, reading
    return replace(source, inputs=InputOptions()), replace(reading, fold_batch_norm=False)


def _whole(
    before: Sequence[FilterBank], after: Sequence[FilterBank], basis: Basis | None
) -> list[tuple[dict[str, object], list[str]]]:
    """One row for each kernel size that both sides have, of more than one element."""
    rows = []
    for size in dict.fromkeys(bank.kernel_size for bank in before):
        sides = [[bank for bank in side if bank.kernel_size == size] for side in (before, after)]
        elements = sides[0][0].kernels.shape[1]
        if not sides[1] or elements == 1 or (basis is not None and basis.width != elements):
            continue
        found = drift(sides[0], sides[1], basis=basis)
        named = "x".join(map(str, size))
        rows.append(({"kernel_size": list(size), **plain(found)}, [named, *cells(found)]))
    if not rows:
        raise InputError(
            "the two sides have no kernels of one size and more than one element"
            + ("" if basis is None else f", of {basis.width} as the basis has")
        )
    return rows


def _rows(layers: LayerDrifts | None) -> list[dict[str, object]] | None:
    if layers is None:
        return None
    return [
        {"layer": row.name, "reason": row.reason or None, **(plain(row.drift) if row.drift else {})}
        for row in layers
    ]
