"""Running a model on batches and seeing what its layers read and write."""

from compressor.observing.batches import Batch, batch_of, loaded
from compressor.observing.layers import LayerCall, observed
from compressor.observing.processes import across, gathered, merged
from compressor.observing.running import run_batches

__all__ = [
    "Batch",
    "LayerCall",
    "across",
    "batch_of",
    "gathered",
    "loaded",
    "merged",
    "observed",
    "run_batches",
]
