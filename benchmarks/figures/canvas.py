"""The style of the results page's figures, and SVG files of them that are the same whenever they are written.

Each stands on a background of its own, as pages are light or dark; what is written in it stays text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compressor.filters.figures.canvas import COLOURS, blank, saved

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "SKY", "Content", "Draw", "dots", "panels", "write"]

Content = Mapping[str, Any]
Draw = Callable[[Sequence[Content]], Figure]

BLUE, ORANGE, GREEN, _, SKY, _, _ = COLOURS
GREY = "#8a8a8a"
_WIDTH = 8.0  # inches
_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": "#222222",
    "axes.labelcolor": "#222222",
    "axes.edgecolor": GREY,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def panels(count: int, *, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the page with `count` panels side by side, of that height in inches."""
    figure = blank(_WIDTH, height)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.04)
    return figure, figure.subplots(1, count, squeeze=False, **options)[0].tolist()


def dots(axes: Axes, names: Sequence[str]) -> None:
    """Make an axes of rows with these names, the first on top, for dots along x."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def write(draw: Draw, kept: Sequence[Content], folder: Path, name: str) -> Path:
    """The path of `name`.svg, drawn from these results."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own style is
        matplotlib.rcParams.update(_STYLE)
        (path,) = saved(draw(kept), folder, name, formats=("svg",))
    return path
