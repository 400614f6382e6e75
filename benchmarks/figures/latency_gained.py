"""Latency gained by each cut of a network: the speed-up, and what accuracy is left at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.canvas import BLUE, GREY, ORANGE, Content, dots, panels

__all__ = ["accuracy", "speedups"]

Row = Mapping[str, Any]
_FRACTION = 0.5
_BASE = "not pruned"


def speedups(kept: Sequence[Content]) -> Figure:
    """Dots: speed-up in onnxruntime by cut for each network with half of the MACs removed, with its range."""
    rows = _rows(kept)
    made = (name for row in rows for name, cut in row["cuts"].items() if "failure" not in cut)
    names = [name for name in dict.fromkeys(made) if name != _BASE]
    figure, axes = panels(len(rows), height=0.9 + 0.24 * len(names), sharey=True)
    for panel, row in zip(axes, rows, strict=True):
        dots(panel, names)
        for place, name in enumerate(names):
            timing = row["measured"].get("default", {}).get(name)
            if timing is None:
                continue
            colour = _colour(name)
            panel.plot(
                [timing["speedup_p10"], timing["speedup_p90"]], [place] * 2, color=colour, alpha=0.4, lw=2
            )
            panel.plot(timing["speedup"], place, "o", color=colour, ms=5)
            other = row["measured"].get("extended", {}).get(name)
            if other is not None:
                panel.plot(other["speedup"], place, "o", mfc="white", mec=colour, ms=4, zorder=1)
        panel.axvline(1, color="#222222", lw=1)
        panel.axvline(1 / _FRACTION, color=GREY, lw=1, ls=":")
        panel.set_title(row["network"].removesuffix("_cifar"), fontsize=8)
        panel.set_xlabel("times as fast", fontsize=8)
    axes[0].plot([], [], "o", color=BLUE, label="default (10-90 %)")
    axes[0].plot([], [], "o", mfc="white", mec=BLUE, label="without blocks of 16")
    axes[0].plot([], [], color=GREY, lw=1, ls=":", label="time falls as MACs do")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    return figure


def accuracy(kept: Sequence[Content]) -> Figure:
    """Dots: accuracy against the speed-up in onnxruntime, half of the MACs removed, norms measured anew."""
    rows = [row for row in _rows(kept) if row["measured"].get("accuracy")]
    figure, axes = panels(len(rows), height=4.0, sharey=True)
    for panel, row in zip(axes, rows, strict=True):
        for name, shares in row["measured"]["accuracy"].items():
            if name == _BASE:
                panel.axhline(100 * shares["as_cut"], color="#222222", lw=1)
                continue
            if name.endswith("latency"):  # of another share of the MACs
                continue
            at = row["measured"]["default"][name]["speedup"], 100 * shares["norms"]
            _mark(panel, name, at)
        panel.set(title=row["network"].removesuffix("_cifar"), xlabel="times as fast")
        panel.grid()
        panel.margins(x=0.35)
    axes[0].plot([], [], "o", color=BLUE, label="ours")
    axes[0].plot([], [], "s", color=ORANGE, label="Torch-Pruning")
    axes[0].plot([], [], color="#222222", lw=1, label="not pruned")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    axes[0].set_ylabel("accuracy, norms measured anew, %")
    return figure


def _mark(axes: Axes, name: str, at: tuple[float, float]) -> None:
    """A dot with its name beside it, ours on the right and theirs on the left."""
    ours = name.startswith("ours")
    axes.plot(*at, "o" if ours else "s", color=_colour(name), ms=5)
    said = name.removeprefix("ours, ").removeprefix("torch-pruning, ")
    place = {"xytext": (5 if ours else -5, 0), "ha": "left" if ours else "right"}
    axes.annotate(said, at, textcoords="offset points", va="center", fontsize=6.5, **place)


def _rows(kept: Sequence[Content]) -> list[Row]:
    return [row for row in kept[0]["rows"] if row["fraction"] == _FRACTION and row["measured"]]


def _colour(name: str) -> str:
    return BLUE if name.startswith("ours") else ORANGE
