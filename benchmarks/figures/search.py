"""Accuracy by who chose the ratios of layers, as cut, for each network and budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures.canvas import BLUE, ORANGE, Content, dots, panels

__all__ = ["by_choice"]

_STAGE = "as cut"
_DENSE = "the network as it is"
_FRACTIONS = {0.7: (BLUE, "o"), 0.5: (ORANGE, "s")}


def by_choice(kept: Sequence[Content]) -> Figure:
    """Dots: test accuracy as cut by who chose the ratios of layers, for each network and two budgets."""
    names = list(dict.fromkeys(row["method"] for row in kept[0]["rows"] if row["method"] != _DENSE))
    figure, axes = panels(len(kept), height=1.0 + 0.28 * len(names), sharey=True)
    for panel, content in zip(axes, kept, strict=True):
        rows = [row for row in content["rows"] if row["stage"] == _STAGE]
        dots(panel, names)
        panel.axvline(_percent([row for row in rows if row["method"] == _DENSE]), color="#222222", lw=1)
        for fraction, (colour, marker) in _FRACTIONS.items():
            for place, name in enumerate(names):
                runs = [row for row in rows if (row["method"], row["fraction"]) == (name, fraction)]
                if runs:
                    panel.plot(_percent(runs), place, marker, color=colour, ms=6)
        panel.set(title=rows[0]["asked"]["network"], xlabel="test accuracy as cut, %", xlim=(0, 97))
    for fraction, (colour, marker) in _FRACTIONS.items():
        label = f"{100 * (1 - fraction):.0f} % of the MACs removed"
        axes[0].plot([], [], marker, color=colour, label=label)
    axes[0].plot([], [], color="#222222", lw=1, label="not pruned")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    return figure


def _percent(rows: Sequence[dict[str, Any]]) -> float:
    right = "".join(row["right"][_STAGE] for row in rows)
    return 100 * right.count("1") / len(right)
