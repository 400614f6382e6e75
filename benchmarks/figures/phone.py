"""Speed-up for the MACs removed: by the runtime's latency table, and without a look at the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures.canvas import BLUE, GREEN, GREY, Content, dots, panels

__all__ = ["GOAL", "LEVELS", "macs_become_time", "time_for_macs"]

GOAL = 0.8
LEVELS = {"default": "onnxruntime, default", "extended": "onnxruntime, no blocks of 16 (as on ARM)"}
_CUTS = {"pruned": (BLUE, "o", "by the table"), "unrounded": (GREY, "s", "without it")}


def macs_become_time(kept: Sequence[Content]) -> Figure:
    """Dots: speed-up over the ratio of MACs for each network, cut by the latency table and without it."""
    rows = kept[0]["rows"]
    figure, axes = panels(2, height=1.0 + 0.34 * len(rows), sharey=True, sharex=True)
    for panel, (level, title) in zip(axes, LEVELS.items(), strict=True):
        dots(panel, [row["network"].removesuffix("_cifar") for row in rows])
        for place, row in enumerate(rows):
            shares = [time_for_macs(row, level, f"{cut}, {level}") for cut in _CUTS]
            panel.plot(shares, [place, place], color=GREY, lw=1, zorder=1)
            for share, (colour, marker, _) in zip(shares, _CUTS.values(), strict=True):
                panel.plot(share, place, marker, color=colour, ms=6)
        panel.axvline(1, color="#222222", lw=1)
        panel.axvline(GOAL, color=GREEN, lw=1, ls="--")
        panel.set(title=title, xlabel="speed-up / times fewer MACs")
    for colour, marker, label in _CUTS.values():
        axes[0].plot([], [], marker, color=colour, label=label)
    axes[0].plot([], [], color="#222222", lw=1, label="time falls as MACs do")
    axes[0].plot([], [], color=GREEN, lw=1, ls="--", label="goal")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=8)
    return figure


def time_for_macs(row: Mapping[str, Any], level: str, variant: str) -> float:
    """The speed-up of a cut over how many times fewer MACs it has: 1 where time falls as MACs do."""
    fewer = row["variants"]["baseline"]["macs"] / row["variants"][variant]["macs"]
    speedup: float = row["measured"][level][variant]["speedup"]
    return speedup / fewer
