"""Recovery after a cut, without training: layers fitted anew, statistics measured anew, constants folded."""

from compressor.recovery.batch_norm import reestimate_batch_norm_
from compressor.recovery.reconstruction import LayerFit, Reconstructed, Reconstruction, reconstruct_
from compressor.recovery.silenced import FoldedReader, Removal, remove_silenced

__all__ = [
    "FoldedReader",
    "LayerFit",
    "Reconstructed",
    "Reconstruction",
    "Removal",
    "reconstruct_",
    "reestimate_batch_norm_",
    "remove_silenced",
]
