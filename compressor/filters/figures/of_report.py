"""The figures of a whole report, as files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.filters.figures.basis import basis_figure
from compressor.filters.figures.canvas import saved
from compressor.filters.figures.depth import depth_figure
from compressor.filters.figures.histograms import histogram_figure
from compressor.filters.figures.phenotypes import phenotype_figure
from compressor.filters.histograms import Histogram
from compressor.filters.kernel_sizes import size_words
from compressor.filters.report_layers import LayerReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from compressor.filters.model_report import FilterReport
    from compressor.filters.standing import Standing

__all__ = ["write_figures"]

_PANELS = 49  # phenotypes in one file


def write_figures(
    report: FilterReport, folder: str | os.PathLike[str], *, formats: Sequence[str] = ("png",)
) -> tuple[Path, ...]:
    """The paths of a report's figures, see `FilterReport.figures`."""
    figures = {"depth": depth_figure({report.model: report})}
    if report.standing is not None:
        figures |= _of_shapes(report, report.standing)
    files = (saved(figure, folder, name, formats=formats) for name, figure in figures.items())
    return tuple(path for paths in files for path in paths)


def _of_shapes(report: FilterReport, standing: Standing) -> dict[str, Figure]:
    layers = [layer for layer in report.layers if layer.histogram is not None]
    size = size_words(standing.kernel_size)
    basis, about = standing.basis, f"{report.model}, {size} kernels, basis {standing.basis.identity}"
    title = f"{about}: shapes and their shares of the variance"
    figures = {"basis": basis_figure(basis, kernel_size=standing.kernel_size, title=title)}
    groups = _groups(report, layers)
    if groups:
        figures["coefficients"] = histogram_figure(
            groups, shares=basis.shares_K.tolist(), title=f"{about}: coefficients"
        )
    pages = [layers[start : start + _PANELS] for start in range(0, len(layers), _PANELS)]
    for number, page in enumerate(pages, start=1):
        name = "phenotypes" if len(pages) == 1 else f"phenotypes-{number}"
        figures[name] = phenotype_figure(page, basis, title=f"{about}: along v0 and v1")
    return figures


def _groups(report: FilterReport, layers: Sequence[LayerReport]) -> dict[str, Histogram]:
    """The histograms of thirds of the layers, and of the one that is farthest from the reference."""
    if len(layers) < 6:
        found = {layer.bank.name: layer.histogram for layer in layers}
    else:
        ranked = sorted(layers, key=lambda layer: layer.bank.conv_depth or 0)
        cuts = [round(len(ranked) * part / 3) for part in range(4)]
        thirds = zip(("first third", "middle third", "last third"), cuts, cuts[1:], strict=False)
        found = {
            name: reduce(Histogram.merge, [x.histogram for x in ranked[start:end] if x.histogram])
            for name, start, end in thirds
        }
        if report.farthest is not None:
            found[report.farthest.bank.name] = report.farthest.histogram
    return {name: counted for name, counted in found.items() if counted is not None and counted.count}
