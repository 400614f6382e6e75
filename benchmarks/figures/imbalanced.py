"""Balanced accuracy after fine-tuning by criterion, with its interval over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures.canvas import BLUE, GREY, Content, dots, panels
from compressor.evaluation import t_interval

__all__ = ["by_criterion"]

_DENSE = "dense"


def by_criterion(kept: Sequence[Content]) -> Figure:
    """Dots: balanced accuracy by criterion, with 95 % intervals over seeds, beside the unpruned network."""
    rows = kept[0]["rows"]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    fraction = min(row["fraction"] for row in rows)
    names = list(dict.fromkeys(row["method"] for row in rows if row["fraction"] == fraction))
    figure, axes = panels(len(sets), height=0.9 + 0.24 * len(names), sharey=True)
    for panel, data in zip(axes, sets, strict=True):
        of_set = [row for row in rows if row["set"] == data]
        middle, half = _interval([row for row in of_set if row["method"] == _DENSE])
        panel.axvspan(middle - half, middle + half, color="#ededed", lw=0)
        panel.axvline(middle, color="#222222", lw=1)
        dots(panel, names)
        for place, name in enumerate(names):
            runs = [row for row in of_set if (row["method"], row["fraction"]) == (name, fraction)]
            if len(runs) < 2:  # not measured on this set, or without a spread
                continue
            middle, half = _interval(runs)
            colour = GREY if name == "Random" else BLUE
            panel.errorbar(middle, place, xerr=half, fmt="o", color=colour, ms=5, capsize=2, lw=1.2)
        panel.set(title=data, xlabel="balanced accuracy, %")
    axes[0].plot([], [], color="#222222", lw=1, label="not pruned")
    left = statistics.mean(row["macs_left"] for row in rows if row["fraction"] == fraction)
    label = f"{100 * (1 - left):.0f} % of the MACs removed, fine-tuned (95 % over seeds)"
    axes[0].plot([], [], "o", color=BLUE, label=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=8)
    return figure


def _interval(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The mean of balanced accuracy, and half of its 95 % interval."""
    found = t_interval([_balanced(row["confusion"]["test"]["tuned"]) for row in rows])
    return found.value, found.high - found.value


def _balanced(confusion: str) -> float:
    """The mean of the classes' recall, in percent; rows of counts, the true class first.

    >>> _balanced("3 1; 0 2")
    87.5
    """
    counts = [[int(n) for n in row.split()] for row in confusion.split(";")]
    return 100 * statistics.mean(row[i] / sum(row) for i, row in enumerate(counts))
