"""Recovery after a cut: what silenced channels left behind is folded into their readers."""

from compressor.recovery.silenced import FoldedReader, Removal, remove_silenced

__all__ = ["FoldedReader", "Removal", "remove_silenced"]
