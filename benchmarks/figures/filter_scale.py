"""Sketches of filters: time for a kernel beside NumPy, and memory as kernels grow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.figures.canvas import BLUE, GREY, SKY, Content, panels

__all__ = ["time_and_memory"]

_COLOURS = {"ours, 1 process": BLUE, "NumPy, tuned, 1 thread": GREY, "NumPy, 1 thread": "#c0c0c0"}


def time_and_memory(kept: Sequence[Content]) -> Figure:
    """Bars: CPU time for a kernel beside NumPy. Lines: memory against the number of kernels."""
    rows = kept[0]["rows"]
    figure, (left, right) = panels(2, height=2.9)
    for number, (name, colour) in enumerate(_COLOURS.items()):
        times = [
            statistics.median(1e9 * found[name]["cpu"] / speed["kernels"] for found in speed["rounds"])
            for speed in rows["speed"]
        ]
        places = [0.27 * (number - 1) + place for place in range(len(times))]
        bars = left.bar(places, times, width=0.25, color=colour, label=name)
        left.bar_label(bars, fmt="%.0f", fontsize=8)
    labels = [f"{100 * speed['sparse']:.0f} % of the kernels sparse" for speed in rows["speed"]]
    left.set_xticks(range(len(labels)), labels)
    left.set(title="Time", ylabel="CPU ns a kernel")
    left.legend(fontsize=8, loc="upper left")
    left.margins(y=0.45)
    many = [size for size in rows["sizes"] if size["layers"] > 1]
    one = [size for size in rows["sizes"] if size["layers"] == 1]
    for sizes, colour, marker, label in ((many, BLUE, "o", "layers of 65,536"), (one, SKY, "s", "one layer")):
        kernels = [size["kernels"] for size in sizes]
        right.plot(kernels, [size["peak MB"] for size in sizes], marker=marker, color=colour, label=label)
    right.set(xscale="log", title="Memory", xlabel="kernels", ylabel="MB, all processes")
    right.set_ylim(0, 1.25 * max(size["peak MB"] for size in rows["sizes"]))
    right.legend(fontsize=8, loc="lower right")
    right.grid(axis="y")
    return figure
