"""How kernels are distributed along each component of a basis, for one group or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import InputError
from compressor.filters.figures.canvas import COLOURS, grid, shortened
from compressor.filters.histograms import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["histogram_figure"]

_LINES = ("-", "--", "-.", ":")
_PANELS = 15  # components that are drawn


def histogram_figure(
    groups: Mapping[str, Histogram], *, shares: Sequence[float], title: str = "Coefficients"
) -> Figure:
    """A figure with a panel for each component, a line for each group of kernels under its name.

    `shares` [K] are those of the basis: how much of the variance each component has; the first 15 components
    are drawn, as densities, so that groups of any size compare. Raises InputError for no group, an empty one,
    and histograms that were not counted alike.

    >>> import torch
    >>> from compressor.filters.basis import Basis
    >>> basis = Basis.cosines((1, 3))
    >>> groups = {"normal": Histogram.of(torch.randn(500, 3), basis)}
    >>> [axes.get_title() for axes in histogram_figure(groups, shares=basis.shares_K.tolist()).axes]
    ['c0 (33.3 %)', 'c1 (33.3 %)', 'c2 (33.3 %)']
    """
    _check(groups, shares)
    drawn = min(len(shares), _PANELS)
    figure, panels = grid(drawn, 3, width=2.5, height=1.6, title=title)
    for component, panel in enumerate(panels):
        for place, (name, counted) in enumerate(groups.items()):
            _draw(panel, counted, component, name, place)
        panel.set_title(f"c{component} ({100 * shares[component]:.1f} %)", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, linewidth=0.4, color="#dddddd")
    figure.supylabel("density", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _check(groups: Mapping[str, Histogram], shares: Sequence[float]) -> None:
    if not groups:
        raise InputError("histogram_figure draws one group of kernels or more, got none")
    first = next(iter(groups.values()))
    for name, counted in groups.items():
        first.require_like(counted)
        if len(counted.counts_KB) != len(shares):
            raise InputError(
                f"group {name!r} has {len(counted.counts_KB)} components, `shares` has {len(shares)}: give "
                f"those of its basis"
            )
        if not counted.count:
            raise InputError(f"group {name!r} has no kernels that are not zero: there is nothing to draw")


def _draw(panel: Axes, counted: Histogram, component: int, name: str, place: int) -> None:
    counts = counted.counts_KB[component].numpy()
    panel.stairs(
        counts / (counted.count * counted.bin_width),
        np.linspace(*counted.limits, len(counts) + 1),
        color=COLOURS[place % len(COLOURS)],
        linestyle=_LINES[place % len(_LINES)],
        linewidth=1.2,
        label=shortened(name, 40),
    )
