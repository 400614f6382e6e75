"""Reports on what was removed, and pictures of searches and of sequences."""

from compressor.reporting.document import Report, Section
from compressor.reporting.making import report
from compressor.reporting.searches import save_frontier_figure, save_sensitivity_figure
from compressor.reporting.sequences import difference, save_gif, save_sequence_figure

__all__ = [
    "Report",
    "Section",
    "difference",
    "report",
    "save_frontier_figure",
    "save_gif",
    "save_sensitivity_figure",
    "save_sequence_figure",
]
