"""The command `filters merge`: tables of sketches that were made apart, in one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.command import Result, command
from compressor.cli.filters.sketch import described
from compressor.cli.progress import Progress
from compressor.filters import Sketches

__all__ = ["MergeOptions", "merge"]


@dataclass(frozen=True)
class MergeOptions:
    """Which tables."""

    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="The table of all.", show_default=False)]
    parts: Annotated[
        list[Path],
        typer.Argument(
            metavar="PART.parquet...", help="Tables of sketches with one basis.", show_default=False
        ),
    ]


@command(example="compressor filters merge all.parquet mine.parquet yours.parquet")
def merge(options: MergeOptions, progress: Progress) -> Result:
    """Put tables of sketches together: of several machines, or of stores that came later.

    All were made with the same basis, bins and thresholds, and no layer is in two of them.
    """
    if options.out.suffix != ".parquet":
        raise typer.BadParameter(f"{options.out} has to end in .parquet", param_hint="OUT")
    with progress.step(f"merging {len(options.parts)} tables"):
        whole = reduce(Sketches.merge, map(Sketches.read, options.parts))
        whole.write(options.out)
    text, data = described(whole)
    return Result(f"{text}\n{options.out}", {**data, "files": [str(options.out)]})
