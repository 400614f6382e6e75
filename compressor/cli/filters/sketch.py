"""The command `filters sketch`: some kilobytes a layer, from which everything follows."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from compressor.cli.command import Result, command
from compressor.cli.filters.sources import (
    SOURCE_HELP,
    ReadingOptions,
    Source,
    banks_of,
    kernel_size_of,
    store_of,
)
from compressor.cli.progress import Progress
from compressor.errors import FileError
from compressor.extras import imported
from compressor.filters import (
    Basis,
    FilterBank,
    Sketches,
    SketchSetting,
    Store,
    sketch_all,
    sketch_on_cluster,
)
from compressor.tables import aligned

__all__ = ["SketchOptions", "described", "sketch"]


@dataclass(frozen=True)
class SketchOptions:
    """What to sketch, and how."""

    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)]
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.parquet",
            help="The table of sketches.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ]
    basis: Annotated[
        Path | None,
        typer.Option(
            "--basis",
            metavar="FILE",
            help="Basis of the histograms, from --basis-out; without it cosines, which need no first pass.",
            rich_help_panel="Filters",
        ),
    ] = None
    basis_out: Annotated[
        Path | None,
        typer.Option(
            "--basis-out",
            metavar="FILE",
            help="Write the principal axes of everything sketched: the basis of a second pass.",
            rich_help_panel="Output",
        ),
    ] = None
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes on this machine.", rich_help_panel="Running")
    ] = 1
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="A Dask scheduler, tcp://host:8786, whose workers see the store. Needs compressor[dask].",
            rich_help_panel="Running",
        ),
    ] = None
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Go on without layers that cannot be read; they are named at the end.",
            rich_help_panel="Running",
        ),
    ] = False


@command(
    example="""
compressor filters sketch store/ -o first.parquet --basis-out basis.safetensors --workers 2

compressor filters sketch store/ -o sketches.parquet --basis basis.safetensors --scheduler tcp://10.0.0.1:8786
""",
)
def sketch(options: SketchOptions, reading: ReadingOptions, progress: Progress) -> Result:
    """Count the filters of every layer once: moments, histograms, sparse kernels.

    Bounded memory, whatever the number of filters. What is done is kept beside the output until all is, so
    that the same command goes on where it was ended. `compare` and `merge` read the result.
    """
    if options.out.suffix != ".parquet":
        raise typer.BadParameter(f"{options.out} has to end in .parquet", param_hint="--out")
    source, size = _source(options.source, reading)
    basis = Basis.cosines(size) if options.basis is None else Basis.load(options.basis)
    run = options.out.with_name(f".{options.out.stem}.run")
    arguments: dict[str, Any] = {
        "into": run,
        "progress": not progress.quiet,
        "skip_unreadable": options.skip_unreadable,
    }
    with progress.step(f"sketching {options.source}"):
        if options.scheduler is None:
            found = sketch_all(source, SketchSetting(basis), workers=options.workers, **arguments)
        else:
            with _client(options.scheduler) as client:
                found = sketch_on_cluster(source, SketchSetting(basis), client, **arguments)
        found.write(options.out)
        if options.basis_out is not None:
            found.basis().save(options.basis_out)
    shutil.rmtree(run)
    written = [str(path) for path in (options.out, options.basis_out) if path is not None]
    text, data = described(found)
    return Result("\n".join([text, *written]), {**data, "files": written})


def described(found: Sketches) -> tuple[str, dict[str, object]]:
    """A table of sketches in a few lines, and as plain data."""
    total = found.total()
    counts = Counter(measured.verdicts[0].value for measured in found.quality())
    shares = [round(float(share), 4) for share in found.basis().shares_K]
    rows = [
        ["layers", f"{len(found):,}"],
        ["kernels", f"{total.count:,}"],
        ["sparse at 1 %", f"{total.sparsity():.4f}"],
    ]
    rows += [[f"layers {verdict}", f"{number:,}"] for verdict, number in counts.most_common()]
    lines = [repr(found), *aligned(rows), f"variance along principal axes: {' '.join(map(str, shares))}"]
    lines += [f"left out {skipped.layer}: {skipped.reason}" for skipped in found.skipped]
    data: dict[str, object] = {
        "layers": len(found),
        "kernels": total.count,
        "sparsity": total.sparsity(),
        "verdicts": dict(counts),
        "explained_variance_ratio": [float(share) for share in found.basis().shares_K],
        "basis": found.setting.basis.identity,
        "skipped": [{"layer": str(s.layer), "reason": s.reason} for s in found.skipped],
    }
    return "\n".join(lines), data


def _source(text: str, reading: ReadingOptions) -> tuple[Store | Sequence[FilterBank], tuple[int, ...]]:
    named = Source(text)
    size = kernel_size_of(reading.kernel_size)
    if named.is_store:
        store = store_of(named, size)
        return store, store.kernel_size
    size = size or (3, 3)
    named_size = "x".join(map(str, size))
    return banks_of(named, replace(reading, kernel_size=named_size)), size


@contextmanager
def _client(address: str) -> Iterator[Any]:
    distributed = imported("distributed", extra="dask", needed_for="--scheduler")
    try:
        client = distributed.Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise FileError(f"--scheduler {address}: no Dask scheduler answers there: {error}") from error
    with client:
        yield client
