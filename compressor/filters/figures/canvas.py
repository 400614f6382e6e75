"""Empty figures in one style, and files of them: matplotlib is imported here alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor.extras import imported

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FORMATS", "blank", "grid", "saved", "shortened"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Told apart with any colour vision. Source: M. Okabe, K. Ito, 2008, Color Universal Design."""
FORMATS = ("png", "svg", "pdf")


def blank(width: float, height: float) -> Figure:
    """A figure of that size in inches, white, its parts laid out so that none overlaps."""
    figures = imported("matplotlib.figure", extra="plots", needed_for="a figure")
    figure: Figure = figures.Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure


def grid(count: int, columns: int, *, width: float, height: float, title: str) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each of that size in inches, and the panels row by row."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = blank(columns * width, rows * height + 0.5)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in panels[count:]:
        unused.set_axis_off()
    return figure, panels[:count]


def shortened(name: str, length: int) -> str:
    """A name, or the end of one that is longer.

    >>> shortened("layer1.0.conv1", 10)
    '...0.conv1'
    """
    return name if len(name) <= length else f"...{name[3 - length :]}"


def saved(
    figure: Figure, folder: str | os.PathLike[str], name: str, *, formats: Sequence[str] = ("png",)
) -> tuple[Path, ...]:
    """The paths of the files `name.<format>` in the folder, which is made where it is missing.

    The same figure gives the same bytes. Raises InputError for a format that is not one of `FORMATS`.
    """
    unknown = [ending for ending in formats if ending not in FORMATS]
    if unknown or not formats:
        raise InputError(f"a figure's formats are some of {', '.join(FORMATS)}, got {list(formats)}")
    matplotlib = imported("matplotlib", extra="plots", needed_for="a figure")
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for ending in formats:
        path = Path(folder) / f"{name}.{ending}"
        undated: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[ending]
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(path, dpi=150, metadata=undated)
        paths.append(path)
    return tuple(paths)
