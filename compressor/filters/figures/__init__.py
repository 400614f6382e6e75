"""Figures of filters; each function gives a matplotlib figure, `saved` its files."""

from compressor.filters.figures.basis import basis_figure
from compressor.filters.figures.canvas import saved
from compressor.filters.figures.depth import depth_figure
from compressor.filters.figures.histograms import histogram_figure
from compressor.filters.figures.phenotypes import phenotype_figure

__all__ = ["basis_figure", "depth_figure", "histogram_figure", "phenotype_figure", "saved"]
