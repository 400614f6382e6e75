"""Time beside Torch-Pruning: the ratio for each network, and how it grows with depth and width."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from benchmarks.figures.canvas import BLUE, GREY, ORANGE, Content, dots, panels

__all__ = ["growth", "ratios"]

_TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2)


def ratios(kept: Sequence[Content]) -> Figure:
    """Dots: CPU time of ours over Torch-Pruning's by network, with the range of rounds; below 1 is faster."""
    rows = kept[0]["rows"]["networks"]
    found = {
        row["network"]: (_ratios(row, "ours", "theirs_"), _ratios(row, "ours", "theirs")) for row in rows
    }
    names = sorted(found, key=lambda name: statistics.median(found[name][0]))
    figure, (axes,) = panels(1, height=0.9 + 0.25 * len(names))
    dots(axes, names)
    for place, name in enumerate(names):
        headline, fair = found[name]
        middle = statistics.median(headline)
        colour = BLUE if middle < 1 else ORANGE
        axes.plot([min(headline), max(headline)], [place, place], color=colour, lw=2, alpha=0.45)
        axes.plot(middle, place, "o", color=colour, ms=6)
        axes.plot(statistics.median(fair), place, "o", mfc="white", mec=colour, ms=5)
        axes.annotate(
            f"{middle:.2f}",
            (1, place),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=8,
        )
    _logarithmic(axes, _TICKS)
    axes.set_xlim(right=2.6)
    axes.axvline(1, color="#222222", lw=1)
    axes.set_xlabel("CPU time, ours / Torch-Pruning (left of 1: ours is faster)")
    axes.plot(
        [], [], "o", color=BLUE, label="ours returns a new network, theirs cuts in place (range of rounds)"
    )
    axes.plot([], [], "o", mfc="white", mec=BLUE, label="both return a new network")
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    return figure


def growth(kept: Sequence[Content]) -> Figure:
    """Lines: CPU time of ours, Torch-Pruning and a forward pass against operators, and against channels."""
    rows = kept[0]["rows"]["scaling"]
    figure, axes = panels(2, height=3.1, sharey=True)
    _grows(axes[0], [row for row in rows if row["series"] == "layers"], "operators")
    _grows(axes[1], [row for row in rows if row["series"] != "layers"], "units")
    axes[0].set(title="Deeper: operators", ylabel="CPU time, ms")
    axes[1].set(title="Wider: channels that can be removed")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=8)
    return figure


def _grows(axes: Axes, rows: Sequence[dict[str, Any]], key: str) -> None:
    sizes = [row[key] for row in rows]
    series = {
        "ours, a new network": (BLUE, "o", [_median_ms(row, "ours") for row in rows]),
        "Torch-Pruning, in place": (ORANGE, "s", [_median_ms(row, "theirs_") for row in rows]),
        "one forward pass and a copy": (
            GREY,
            "^",
            [1e3 * (row["forward_s"] + row["copy_s"]) for row in rows],
        ),
    }
    for label, (colour, marker, times) in series.items():
        axes.plot(sizes, times, marker=marker, color=colour, label=label, ms=5)
    mine = series["ours, a new network"][2]
    line = [mine[0] * size / sizes[0] for size in sizes]
    axes.plot(sizes, line, ":", color=BLUE, lw=1, label="in proportion")
    axes.set_yscale("log")
    _logarithmic(axes, sizes)
    axes.yaxis.set_major_locator(FixedLocator([20, 50, 100, 200, 500, 1000, 2000]))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.grid()


def _logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([*ticks]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _ratios(row: dict[str, Any], mine: str, peer: str) -> list[float]:
    return [t[mine]["cpu_s"] / t[peer]["cpu_s"] for t in row["rounds"] if mine in t and peer in t]


def _median_ms(row: dict[str, Any], contender: str) -> float:
    return 1e3 * statistics.median(times[contender]["cpu_s"] for times in row["rounds"])
