"""Where results go: a place that cannot be written is refused before the work, not after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from compressor.errors import FileError
from compressor.reporting.searches import check_figure_format

__all__ = ["FigureOptions", "check_figure", "check_file", "check_folder"]


def check_file(path: Path | None, option: str, *, overwrite: bool = True, makes_folder: bool = False) -> None:
    """Raise FileError, which names the `option`, where no file can be written at `path`; None is no place.

    With `makes_folder` the folder of the file may still be missing.
    """
    if path is None:
        return
    parent = path.absolute().parent
    while makes_folder and not parent.exists():
        parent = parent.parent
    if path.is_dir() or not parent.is_dir():
        raise FileError(f"{option} {str(path)!r}: expected a file in a folder that exists")
    if path.exists() and not overwrite:
        raise FileError(
            f"{option} {str(path)!r} exists; choose another name, or pass --overwrite to replace it"
        )


@dataclass(frozen=True)
class FigureOptions:
    """A picture of what was measured."""

    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            metavar="FILE",
            help="A picture of them. Needs compressor[plots].",
            rich_help_panel="Output",
        ),
    ] = None


def check_figure(options: FigureOptions) -> None:
    """`check_file` for --figure; raises InputError where its ending is no format of figures, too."""
    check_file(options.figure, "--figure")
    if options.figure is not None:
        check_figure_format(options.figure)


def check_folder(path: Path, option: str, *, overwrite: bool) -> None:
    """Raise FileError where `path` is no folder, or one with something in it and not to be overwritten."""
    if path.exists() and not path.is_dir():
        raise FileError(f"{option} {str(path)!r} is a file, expected a folder")
    if path.exists() and any(path.iterdir()) and not overwrite:
        raise FileError(
            f"{option} {str(path)!r} exists and is not empty; choose another folder, or pass "
            "--overwrite to replace the model in it"
        )
