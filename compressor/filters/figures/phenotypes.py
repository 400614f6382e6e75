"""Clouds of kernels along the first two components of a basis, a panel for each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import InputError
from compressor.extras import imported
from compressor.filters.basis import Basis
from compressor.filters.figures.canvas import grid, shortened
from compressor.filters.report_layers import LayerReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["phenotype_figure"]

_LEAST, _MOST = 24, 128  # bins along an axis


def phenotype_figure(
    layers: Sequence[LayerReport], basis: Basis, *, columns: int = 7, title: str = "Kernels along v0 and v1"
) -> Figure:
    """A figure with the density of each layer's kernels along the first two components, on a log scale.

    Above each panel stand the layer, its phenotype and its number of kernels. Kernels are divided by their
    largest weight, as everywhere in a basis. The bounds are ±1.1 √K, 3.3 for 3 x 3 as in the publication; a
    panel has about as many bins along an axis as the root of its number of kernels, 24 to 128 (there 512).
    All panels share one scale of colours, in shares of the layer's kernels per unit of area.

    *Source: P. Gavrikov, J. Keuper, CNN Filter DB, 2022, arXiv 2203.15331, phenotypes.*

    Raises InputError for no layer, and where a layer's kernels do not fit the basis.
    """
    if not layers:
        raise InputError("phenotype_figure draws one layer or more, got none")
    figure, panels = grid(len(layers), columns, width=1.75, height=1.8, title=title)
    for layer, panel in zip(layers, panels, strict=True):
        image = _draw(panel, layer, basis)
    columns = min(columns, len(layers))
    for place, panel in enumerate(panels):
        panel.tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= len(panels))
    height = figure.get_size_inches()[1]
    bar = figure.colorbar(image, ax=figure.axes, shrink=min(0.8, 3 / height), aspect=25, anchor=(0, 1))
    bar.set_label("kernels, share per unit area", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return figure


def _draw(panel: Axes, layer: LayerReport, basis: Basis) -> AxesImage:
    colours = imported("matplotlib.colors", extra="plots", needed_for="a figure")
    points = basis.coefficients(layer.bank.kernels)[:, :2].cpu().numpy()
    bound = 1.1 * math.sqrt(basis.width)
    bins = int(np.clip(round(len(points) ** 0.5), _LEAST, _MOST))
    density, _, _ = np.histogram2d(
        points[:, 0], points[:, 1], bins=bins, range=[[-bound, bound]] * 2, density=True
    )
    image = panel.imshow(
        np.ma.masked_equal(density.T, 0),
        origin="lower",
        extent=(-bound, bound, -bound, bound),
        interpolation="nearest",
        cmap="viridis_r",
        norm=colours.LogNorm(vmin=5e-3, vmax=2, clip=True),
    )
    panel.axhline(0, color="#bbbbbb", linewidth=0.4, zorder=-1)
    panel.axvline(0, color="#bbbbbb", linewidth=0.4, zorder=-1)
    ticks = [-math.floor(bound), 0, math.floor(bound)]
    panel.set(xlim=(-bound, bound), ylim=(-bound, bound), xticks=ticks, yticks=ticks)
    panel.tick_params(labelsize=6, length=2)
    kind = f"{layer.phenotype.value}, " if layer.phenotype else ""
    panel.set_title(f"{shortened(layer.bank.name, 26)}\n{kind}n = {layer.bank.count:,}", fontsize=6.5)
    return image
