"""Pictures of what was found."""

from compressor.report.searches import save_frontier_figure, save_sensitivity_figure
from compressor.report.sequences import difference, save_gif, save_sequence_figure

__all__ = [
    "difference",
    "save_frontier_figure",
    "save_gif",
    "save_sensitivity_figure",
    "save_sequence_figure",
]
