"""Figures of searches: quality against a cost, and what each group's channels are worth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import InputError
from compressor.extras import imported
from compressor.search import Frontier, Sensitivity
from compressor.whole_files import drafted

__all__ = ["check_figure_format", "save_frontier_figure", "save_sensitivity_figure"]

_BLUE, _GREY, _DARK = "#1f77b4", "#b5b5b5", "#444444"
_NAMED = 5  # points of a front that are named in the figure
_LETTERS = 28


def save_frontier_figure(
    path: str | os.PathLike[str], frontier: Frontier, *, cost: str | None = None
) -> None:
    """A figure of the points of a frontier, quality above one of its costs; the path's ending is its format.

    `cost` is the first of those that the frontier is held against where none is named. Points that others
    beat are grey, the others are joined as a staircase: what a cost buys at least. A point without a plan,
    the unpruned model, is a star. Raises InputError for a cost that the points do not have or an ending that
    is no format, FileError where the file cannot be written, MissingExtraError without Matplotlib.

    >>> import tempfile; from pathlib import Path; from compressor.search import Point
    >>> points = [Point("a", 0.9, {"macs": 50}), Point("b", 0.8, {"macs": 60})]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_frontier_figure(Path(folder) / "a.png", Frontier(tuple(points), "accuracy"))
    ...     (Path(folder) / "a.png").is_file()
    True
    """
    figures = imported("matplotlib.figure", extra="plots", needed_for="a figure")
    tickers = imported("matplotlib.ticker", extra="plots", needed_for="a figure")
    along = frontier.by[0] if cost is None else cost
    for p in frontier.points:
        if along not in p.costs:
            raise InputError(
                f"save_frontier_figure: {p!r} has no cost {along!r}; it has {', '.join(p.costs)}"
            )
    figure = figures.Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    beaten = [p for p, worse in zip(frontier.points, frontier.dominated, strict=True) if worse]
    best = sorted(frontier.best, key=lambda p: p.costs[along])
    xs, ys = [p.costs[along] for p in beaten], [p.quality for p in beaten]
    axes.scatter(xs, ys, s=18, color=_GREY, label="beaten")
    xs, ys = [p.costs[along] for p in best], [p.quality for p in best]
    axes.step(xs, ys, where="post", color=_BLUE, linewidth=1.2)
    axes.scatter(xs, ys, s=26, color=_BLUE, zorder=3, label="not beaten")
    whole = [p for p in frontier.points if p.plan is None]
    xs, ys = [p.costs[along] for p in whole], [p.quality for p in whole]
    axes.scatter(xs, ys, s=110, marker="*", color=_DARK, zorder=4, label="unpruned" if whole else None)
    for place in sorted({*np.linspace(0, len(best) - 1, _NAMED).astype(int).tolist()}):
        p = best[place]
        axes.annotate(
            p.name if len(p.name) <= _LETTERS else f"{p.name[: _LETTERS - 1]}…",
            (p.costs[along], p.quality),
            xytext=(5, -11),
            textcoords="offset points",
            fontsize=7,
            color=_DARK,
        )
    axes.set(xlabel=along.replace("_", " "), ylabel=frontier.evaluation)
    axes.xaxis.set_major_formatter(tickers.EngFormatter())
    axes.margins(x=0.12, y=0.1)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower right")
    _save(figure, path)


def save_sensitivity_figure(path: str | os.PathLike[str], sensitivity: Sensitivity) -> None:
    """A figure of what the quality falls by for each group (rows) and ratio (columns), as a heat map.

    White cells were not measured, as the ratio is less than one channel of the group. Raises InputError where
    no group was measured, else the errors of `save_frontier_figure`.

    >>> import tempfile; from pathlib import Path; from compressor.search import Curve
    >>> curve = Curve("conv1.weight", 8, (4,), (0.9,), (60,))
    >>> found = Sensitivity("Net", "0f", "Norm()", "accuracy", 0, 0.95, 100, (0.5,), (curve,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_sensitivity_figure(Path(folder) / "a.png", found)
    ...     (Path(folder) / "a.png").is_file()
    True
    """
    figures = imported("matplotlib.figure", extra="plots", needed_for="a figure")
    drops = sensitivity.table()
    if not np.isfinite(drops).any():
        raise InputError("save_sensitivity_figure: no group was measured at any ratio")
    height = 1.2 + 0.22 * len(sensitivity.curves)
    figure = figures.Figure(
        figsize=(2.6 + 0.55 * len(sensitivity.ratios) + 1.4, height), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(drops, cmap="viridis_r", aspect="auto", vmin=min(0.0, float(np.nanmin(drops))))
    axes.set_xticks(
        range(len(sensitivity.ratios)), [f"{ratio:g}" for ratio in sensitivity.ratios], fontsize=7
    )
    names = [f"{curve.group} ({curve.size})" for curve in sensitivity.curves]
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="ratio removed of one group alone")
    figure.colorbar(image, ax=axes, label=f"fall of {sensitivity.evaluation} from {sensitivity.quality:.4g}")
    _save(figure, path)


def check_figure_format(path: str | os.PathLike[str]) -> None:
    """Raise InputError for an ending that no format of Matplotlib has; MissingExtraError without it."""
    backends = imported("matplotlib.backend_bases", extra="plots", needed_for="a figure")
    known = sorted(backends.FigureCanvasBase.get_supported_filetypes())
    if Path(path).suffix.lower().removeprefix(".") not in known:
        raise InputError(f"a figure {str(path)!r}: its ending says the format, one of {', '.join(known)}")


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    check_figure_format(path)
    with drafted(Path(path), what=f"the figure {str(path)!r}") as draft:
        figure.savefig(draft, dpi=150)
