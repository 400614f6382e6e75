"""How many networks of each source had each outcome by which library, as stacked bars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures.canvas import BLUE, GREY, ORANGE, SKY, Content, panels

__all__ = ["OUTCOMES", "by_library", "outcomes"]

OUTCOMES = {
    "exact": BLUE,
    "exact, kept statistics": SKY,
    "refused": GREY,
    "wrong": "#b00020",
    "fails": ORANGE,
    "nothing removed": "#9ad0c2",
    "cannot judge": "#e8e0b0",
    "not run": "#d0d0d0",
}


def by_library(kept: Sequence[Content]) -> dict[tuple[str, str], list[Any]]:
    """The rows of each source and library, ours above theirs."""
    found = {}
    for content in kept:
        peer = "benchmarks.peer_coverage" in content["context"]["command"]
        found[content["rows"][0]["source"], "torch-pruning" if peer else "ours"] = content["rows"]
    sources = list(dict.fromkeys(source for source, _ in found))
    return dict(sorted(found.items(), key=lambda item: (sources.index(item[0][0]), item[0][1])))


def outcomes(kept: Sequence[Content]) -> Figure:
    """Bars: the networks of torchvision, timm and transformers by outcome, ours above Torch-Pruning's."""
    libraries = by_library(kept)
    figure, (axes,) = panels(1, height=0.8 + 0.36 * len(libraries))
    counts = [Counter(row["status"] for row in rows) for rows in libraries.values()]
    unknown = {status for count in counts for status in count} - {*OUTCOMES}
    if unknown:
        raise KeyError(f"networks with outcomes that have no colour: {sorted(unknown)}")
    start = [0] * len(counts)
    for outcome, colour in OUTCOMES.items():
        lengths = [count[outcome] for count in counts]
        if not any(lengths):
            continue
        bars = axes.barh(range(len(counts)), lengths, left=start, color=colour, height=0.7, label=outcome)
        labels = [str(n) if n > 4 else "" for n in lengths]
        dark = colour in (BLUE, OUTCOMES["wrong"])
        axes.bar_label(bars, labels, label_type="center", color="white" if dark else "#222222")
        start = [a + b for a, b in zip(start, lengths, strict=True)]
    axes.set_yticks(range(len(counts)), [f"{source}, {library}" for source, library in libraries])
    axes.invert_yaxis()
    axes.set(xlabel="networks", xlim=(0, max(start) * 1.01))
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=4, fontsize=8)
    return figure
