"""The command `filters extract`: the kernels of many models into a store."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.command import Result, command
from compressor.cli.filters.sources import kernel_size_of
from compressor.cli.model import ModelOptions, build
from compressor.cli.progress import Progress
from compressor.filters import FilterBank, banks, import_filter_db
from compressor.filters import extract as extract_all
from compressor.filters.store.sources import sources_of

__all__ = ["ExtractOptions", "extract"]

_HDF5 = (".h5", ".hdf5")


@dataclass(frozen=True)
class ExtractOptions:
    """From what, and to where."""

    store: Annotated[
        Path,
        typer.Argument(
            metavar="STORE",
            help="Folder of the store; one that is there is gone on with.",
            show_default=False,
        ),
    ]
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="ONNX files, folders of them, models (package.module:attribute or a name), or the published "
            "HDF5 file of CNN Filter DB alone.",
            show_default=False,
        ),
    ]
    kernel_size: Annotated[
        str,
        typer.Option("--kernel-size", metavar="SIZE", help="Size of the kernels.", rich_help_panel="Filters"),
    ] = "3x3"
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            metavar="NAME=VALUE",
            help="A column of all models of this run, such as task=Classification. Repeat it for more.",
            rich_help_panel="Filters",
        ),
    ] = None
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Go on without files that cannot be read; they are named at the end.",
            rich_help_panel="Filters",
        ),
    ] = False
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of random weights.", rich_help_panel="Model")
    ] = 0


@command(
    example="""
compressor filters extract store/ zoo/ --metadata task=Classification

compressor filters extract store/ dataset.h5
""",
)
def extract(options: ExtractOptions, progress: Progress) -> Result:
    """Write the kernels of many models to a Parquet store.

    By the rules of CNN Filter DB: every 2-D kernel of every convolution, with the depth of its layer. The
    same command goes on where a run was ended. Needs compressor[filters], and compressor[onnx] for ONNX
    files.
    """
    size = kernel_size_of(options.kernel_size)
    assert size is not None
    published = [text for text in options.sources if text.endswith(_HDF5)]
    with progress.step(f"extracting into {options.store}"):
        if published:
            if len(options.sources) > 1 or options.metadata or size != (3, 3):
                raise typer.BadParameter(
                    f"{published[0]} is imported alone, with its own meta data and 3x3 kernels",
                    param_hint="SOURCE",
                )
            found = import_filter_db(
                published[0],
                options.store,
                skip_unreadable=options.skip_unreadable,
                progress=not progress.quiet,
            )
        else:
            sources = _sources(options, size)
            said = _metadata(options.metadata or [])
            found = extract_all(
                sources,
                options.store,
                kernel_size=size,
                metadata=dict.fromkeys(sources, said) if said else None,
                skip_unreadable=options.skip_unreadable,
                progress=not progress.quiet,
            )
    skipped = [f"left out {unread}" for unread in found.skipped]
    data = {
        "added": list(found.added),
        "kept": list(found.kept),
        "skipped": [str(unread) for unread in found.skipped],
        "models": len(found.store.models),
        "layers": len(found.store.layers),
        "kernels": found.store.count,
    }
    return Result("\n".join([str(found), *skipped]), data)


Model = str | Callable[[], tuple[FilterBank, ...]]


def _sources(options: ExtractOptions, size: tuple[int, ...]) -> dict[str, Model]:
    """What to read, by the names that the models will have."""
    files = [text for text in options.sources if text.endswith(".onnx") or Path(text).is_dir()]
    found: dict[str, Model] = {}
    if files:
        found = {source.model: str(source.origin) for source in sources_of(files, size)}
    for text in options.sources:
        if text not in files:
            if text in found:
                raise typer.BadParameter(f"{text!r} is there twice", param_hint="SOURCE")
            found[text] = _of_model(text, options.seed, size)
    return found


def _of_model(text: str, seed: int, size: tuple[int, ...]) -> Callable[[], tuple[FilterBank, ...]]:
    def read() -> tuple[FilterBank, ...]:
        return banks(build(ModelOptions(text, seed=seed)), kernel_size=size, model_name=text)

    return read


def _metadata(given: list[str]) -> dict[str, str | int | float]:
    said: dict[str, str | int | float] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals or name in said:
            raise typer.BadParameter(
                f"{text!r} is not of the form name=value, each name once, such as task=Classification",
                param_hint="--metadata",
            )
        said[name] = _plain(value)
    return said


def _plain(text: str) -> str | int | float:
    """A number where the text is one.

    >>> _plain("12"), _plain("0.5"), _plain("Style")
    (12, 0.5, 'Style')
    """
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    return text
