"""Pictures of what was found."""

from compressor.report.sequences import difference, save_gif, save_sequence_figure

__all__ = ["difference", "save_gif", "save_sequence_figure"]
