"""Accuracy right after the cut, by scorer: as cut, with norms measured anew, reconstructed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures.canvas import BLUE, GREY, ORANGE, SKY, Content, dots, panels

__all__ = ["by_scorer"]

_STAGES = {
    "as_cut": ("as cut", "o", GREY),
    "norms": ("norms measured anew", "s", SKY),
    "reconstructed": ("reconstructed", "D", BLUE),
}
_FRACTIONS = (0.5, 0.3)


def by_scorer(kept: Sequence[Content]) -> Figure:
    """Dots: accuracy of ResNet-56 by scorer and way of recovery, with 50 and with 70 % of the MACs removed.

    Of each scorer the order that ends best, on the channels inside blocks.
    """
    rows = kept[0]["rows"]
    (dense,) = [_percent([row], "as_cut") for row in rows if row["scorer"] == "dense"]
    methods = [_best(rows, fraction) for fraction in _FRACTIONS]
    names = sorted(methods[0], key=lambda name: _final(methods[0][name]), reverse=True)
    figure, axes = panels(2, height=0.9 + 0.24 * len(names), sharey=True)
    for panel, fraction, found in zip(axes, _FRACTIONS, methods, strict=True):
        dots(panel, names)
        for stage, (label, marker, colour) in _STAGES.items():
            done = [(place, name) for place, name in enumerate(names) if stage in _stages(found.get(name))]
            shares = [_percent(found[name], stage) for _, name in done]
            panel.plot(shares, [place for place, _ in done], marker, color=colour, ms=5, label=label, ls="")
        panel.axvline(dense, color="#222222", lw=1)
        panel.set(
            title=f"{100 * (1 - fraction):.0f} % of the MACs removed", xlabel="accuracy, %", xlim=(5, 97)
        )
    for label in axes[0].get_yticklabels():
        if label.get_text().startswith("Torch-Pruning"):
            label.set_color(ORANGE)
    axes[0].plot([], [], color="#222222", lw=1, label="not pruned")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=8)
    return figure


def _best(rows: Sequence[dict[str, Any]], fraction: float) -> dict[str, list[dict[str, Any]]]:
    """The runs of each scorer in the order in which it ends best, over all seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["fraction"] == fraction and row["scope"] == "inner" and "right" in row:
            peer = "Torch-Pruning " if row["library"] == "torch-pruning" else ""
            groups.setdefault((f"{peer}{row['scorer']}", row["order"]), []).append(row)
    best: dict[str, tuple[str, list[dict[str, Any]]]] = {}
    for (name, order), runs in groups.items():
        if name not in best or _final(runs) > _final(best[name][1]):
            best[name] = order, runs
    return {name: runs for name, (_, runs) in best.items()}


def _stages(runs: Sequence[dict[str, Any]] | None) -> list[str]:
    return list(runs[0]["right"]) if runs else []


def _final(runs: Sequence[dict[str, Any]]) -> float:
    return _percent(runs, _stages(runs)[-1])


def _percent(runs: Sequence[dict[str, Any]], stage: str) -> float:
    right = "".join(run["right"][stage] for run in runs)
    return 100 * right.count("1") / len(right)
