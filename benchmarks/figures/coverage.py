"""How many networks of each source had each outcome, as stacked bars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.figures.canvas import BLUE, GREY, ORANGE, SKY, Content, panels

__all__ = ["OUTCOMES", "outcomes"]

OUTCOMES = {
    "exact": BLUE,
    "exact, kept statistics": SKY,
    "refused": GREY,
    "wrong": "#b00020",
    "fails": ORANGE,
    "not run": "#d0d0d0",
}


def outcomes(kept: Sequence[Content]) -> Figure:
    """Bars: the networks of torchvision, timm and transformers, counted by outcome."""
    figure, (axes,) = panels(1, height=0.6 + 0.42 * len(kept))
    sources = [content["rows"][0]["source"] for content in kept]
    counts = [Counter(row["status"] for row in content["rows"]) for content in kept]
    unknown = {status for count in counts for status in count} - {*OUTCOMES}
    if unknown:
        raise KeyError(f"networks with outcomes that have no colour: {sorted(unknown)}")
    start = [0] * len(kept)
    for outcome, colour in OUTCOMES.items():
        lengths = [count[outcome] for count in counts]
        if not any(lengths):
            continue
        bars = axes.barh(range(len(kept)), lengths, left=start, color=colour, height=0.62, label=outcome)
        labels = [str(n) if n > 4 else "" for n in lengths]
        axes.bar_label(bars, labels, label_type="center", color="white" if colour == BLUE else "#222222")
        start = [a + b for a, b in zip(start, lengths, strict=True)]
    axes.set_yticks(range(len(kept)), sources)
    axes.invert_yaxis()
    axes.set(xlabel="networks", xlim=(0, max(start) * 1.01))
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=len(OUTCOMES), fontsize=8)
    return figure
