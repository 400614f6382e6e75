"""Accuracy after fine-tuning against MACs: ours, with and without extras, beside torch-pruning's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures.canvas import BLUE, GREEN, ORANGE, SKY, Content, panels

__all__ = ["against_macs"]

_FITTED = ("ours", "ReconstructionError", "all", "per MAC", "reconstructed")
# By library, scorer, what may be cut, order and extra: the name, the colour, the line and the marker.
_LINES = {
    _FITTED: ("ours: reconstruction error per MAC, reconstructed", BLUE, "-", "D"),
    ("ours", "Norm(2, power=2)", "all", "global", "reconstructed"): (
        "ours: default, reconstructed",
        SKY,
        "-",
        "s",
    ),
    ("ours", "Norm(2, power=2)", "inner", "global", ""): ("ours: default, inside blocks", GREEN, "-", "o"),
    ("ours", "Norm(2, power=2)", "all", "global", ""): ("ours: default", GREEN, "--", "o"),
    ("torch-pruning", "Norm(2)", "inner", "global", ""): ("Torch-Pruning: norm, global", ORANGE, "-", "^"),
    ("torch-pruning", "Norm(2)", "inner", "uniform", ""): ("Torch-Pruning: norm, uniform", ORANGE, "--", "v"),
}


def against_macs(kept: Sequence[Content]) -> Figure:
    """Lines: accuracy after the same short training against the MACs left, bars of one standard error.

    The error is that over the test images, which all lines of a network share.
    """
    kept = [content for content in kept if any(row["scorer"] == "dense" for row in content["rows"])]
    figure, axes = panels(len(kept), height=3.9)
    for panel, content in zip(axes, kept, strict=True):
        rows = [row for row in content["rows"] if "right" in row]
        for key, (label, colour, line, marker) in _LINES.items():
            found = _points([row for row in rows if _key(row) == key])
            if found:
                macs, shares, errors = zip(*found, strict=True)
                panel.errorbar(
                    macs, shares, errors, color=colour, ls=line, marker=marker, ms=4, lw=1.3, label=label
                )
        dense = _share([row for row in rows if row["scorer"] == "dense"])
        panel.axhline(100 * dense, color="#222222", lw=1, label="not pruned, trained as long")
        panel.set(
            title=_title(rows[0]["schedule"]),
            xlabel="MACs left, %",
            ylabel="accuracy after fine-tuning, %" if panel is axes[0] else "",
        )
        panel.grid(axis="y")
    handles = {
        label: h for panel in axes for h, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=2, fontsize=8)
    return figure


def _title(schedule: dict[str, Any]) -> str:
    number = schedule["network"].removeprefix("resnet").removesuffix("_cifar")
    epochs = "an epoch" if schedule["epochs"] == 1 else f"{schedule['epochs']} epochs"
    return f"ResNet-{number}, {epochs} of {schedule['train']} images"


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("library", "scorer", "scope", "order", "extra"))


def _points(rows: Sequence[dict[str, Any]]) -> list[tuple[float, float, float]]:
    """MACs left, accuracy and its standard error, in percent, for each fraction in ascending order."""
    points = []
    for fraction in sorted({row["fraction"] for row in rows}):
        runs = [row for row in rows if row["fraction"] == fraction]
        share, n = _share(runs), len(runs[0]["right"]["fine_tuned"])
        macs = sum(row["macs_left"] for row in runs) / len(runs)
        points.append((100 * macs, 100 * share, 100 * math.sqrt(share * (1 - share) / n)))
    return points


def _share(runs: Sequence[dict[str, Any]]) -> float:
    right = "".join(run["right"]["fine_tuned"] for run in runs)
    return right.count("1") / len(right)
