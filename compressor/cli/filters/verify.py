"""The command `filters verify`: whether a store is as it was written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.command import Result, command
from compressor.cli.progress import Progress
from compressor.filters import verify_store

__all__ = ["VerifyOptions", "verify"]


@dataclass(frozen=True)
class VerifyOptions:
    """Which store."""

    store: Annotated[
        Path,
        typer.Argument(metavar="STORE", help="Folder of a store that `extract` wrote.", show_default=False),
    ]


@command(example="compressor filters verify store/")
def verify(options: VerifyOptions, progress: Progress) -> Result:
    """Read every file of a store and compare it with its checksum.

    Exit code 1, with all files that are missing, cut short, changed or unknown, where one is.
    """
    progress.say(f"verifying {options.store}")
    found = verify_store(options.store, progress=not progress.quiet)
    return Result(str(found), asdict(found))
