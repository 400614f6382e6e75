"""Running a model on batches and seeing what its layers read and write."""

from compressor.observing.batches import Batch, batch_of, loaded
from compressor.observing.layers import LayerCall, observed
from compressor.observing.normal_equations import NormalEquations, Sums
from compressor.observing.patches import Places, inputs_at, n_places, outputs_at, taps_of
from compressor.observing.processes import across, gathered, merged
from compressor.observing.running import run_batches, running
from compressor.observing.sums import Followed, followed

__all__ = [
    "Batch",
    "Followed",
    "LayerCall",
    "NormalEquations",
    "Places",
    "Sums",
    "across",
    "batch_of",
    "followed",
    "gathered",
    "inputs_at",
    "loaded",
    "merged",
    "n_places",
    "observed",
    "outputs_at",
    "run_batches",
    "running",
    "taps_of",
]
