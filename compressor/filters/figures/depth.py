"""Measures of layers against their depth in the network, for one report or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.filters.drift import Drift
from compressor.filters.figures.canvas import COLOURS, blank, shortened
from compressor.filters.quality import Bounds
from compressor.filters.report_layers import LayerReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from compressor.filters.model_report import FilterReport

__all__ = ["depth_figure"]

_NAMES = 40  # layers that still have room for their names
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class _Measure:
    """A title, the number of a layer, and a bound that is drawn as a dashed line."""

    title: str
    of: Callable[[LayerReport], float | None]
    bound: float | None = None
    from_zero: bool = True


_MEASURES = (
    _Measure("sparsity S", lambda layer: layer.quality.sparsity, Bounds().sparse_share),
    _Measure("H / T_H (1: random)", lambda layer: layer.entropy_ratio, 1.0, from_zero=False),
    _Measure("shapes, 10^H", lambda layer: layer.effective_shapes),
    _Measure("orthogonality", lambda layer: layer.quality.orthogonality, from_zero=False),
    _Measure("dead filters, share", lambda layer: len(layer.quality.dead_filters) / len(layer.bank.weight)),
    _Measure("D less its noise", lambda layer: _seen(layer.drift)),
)


def depth_figure(reports: Mapping[str, FilterReport]) -> Figure:
    """A figure with a panel for each measure, a line for each report under its title.

    Of one report the layers stand side by side with their names, in their order; of several at their relative
    depth, 0 for the first and 1 for the last (their place in the report where that is not known). A measure
    that is not defined for a layer leaves a gap, one that no layer has is left out. Dashed lines: the share
    from which on a layer is called sparse, and the diversity of random kernels. D is shown where it is above
    noise, less what noise alone has on average. Raises InputError for no report.
    """
    if not reports:
        raise InputError("depth_figure draws one report or more under their titles, got none")
    layers = {title: report.layers for title, report in reports.items()}
    every = [layer for group in layers.values() for layer in group]
    shown = [measure for measure in _MEASURES if any(measure.of(layer) is not None for layer in every)]
    alone = len(layers) == 1
    most = max(map(len, layers.values()))
    figure = blank(min(max(7.0, 0.22 * most), 14.0), 1.35 * len(shown) + (1.6 if alone else 0.9))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False).flatten().tolist()
    for panel, measure in zip(panels, shown, strict=True):
        for place, (name, group) in enumerate(layers.items()):
            _draw(panel, _places(group, alone=alone), [measure.of(x) for x in group], name, place)
        if measure.bound is not None:
            panel.axhline(measure.bound, color="#888888", linestyle="--", linewidth=0.8)
        if measure.from_zero:
            panel.set_ylim(bottom=0)
        panel.set_ylabel(measure.title, fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(True, linewidth=0.4, color="#dddddd")
        panel.spines[["top", "right"]].set_visible(False)
    if alone:
        ((name, group),) = layers.items()
        figure.suptitle(f"{name}: measures by layer", fontsize=10)
        _name_layers(panels[-1], [layer.bank.name for layer in group])
    else:
        panels[-1].set_xlabel("relative depth, from the first convolution (0) to the last (1)", fontsize=8)
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=4,
            fontsize=8,
            frameon=False,
        )
    return figure


def _seen(drift: Drift | None) -> float | None:
    """What is left of D without the D of equal distributions, which is large for few kernels."""
    return drift.value - drift.noise.expected if drift is not None and drift.above_noise else None


def _draw(panel: Axes, x: list[float], y: list[float | None], name: str, place: int) -> None:
    values = [float("nan") if value is None else value for value in y]
    panel.plot(
        x,
        values,
        color=COLOURS[place % len(COLOURS)],
        marker=_MARKERS[place % len(_MARKERS)],
        markersize=3.5,
        linewidth=1,
        label=name,
    )


def _places(layers: tuple[LayerReport, ...], *, alone: bool) -> list[float]:
    if alone:
        return [float(place) for place in range(len(layers))]
    last = max(len(layers) - 1, 1)
    return [
        place / last if layer.bank.conv_depth_norm is None else layer.bank.conv_depth_norm
        for place, layer in enumerate(layers)
    ]


def _name_layers(panel: Axes, names: list[str]) -> None:
    step = -(-len(names) // _NAMES)
    short = [shortened(name, 40) for name in names[::step]]
    panel.set_xticks(range(0, len(names), step), short, rotation=90, fontsize=6)
    panel.set_xlim(-0.5, len(names) - 0.5)
