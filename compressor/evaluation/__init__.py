"""How well a model does: classifiers class by class, with intervals, and how far restored images are off.

Every number is computed on the whole set, never averaged over batches: an average of batch means of
macro recall is no macro recall.
"""

from compressor.evaluation.classification import Classification, classification
from compressor.evaluation.comparison import ClassChange, ClassComparison, compare_classes
from compressor.evaluation.fidelity import mae, mse, psnr, psnr_of_each
from compressor.evaluation.intervals import Interval, t_interval, wilson_interval
from compressor.evaluation.metrics import balanced_accuracy, macro_f1
from compressor.evaluation.perceptual import (
    energy_distance,
    features_of,
    frechet_distance,
    kernel_distance,
    lpips,
    ssim,
)
from compressor.evaluation.predictions import Predictions, classify, pooled
from compressor.evaluation.records import (
    RecordMetric,
    RecordPredictions,
    classify_records,
    record_predictions,
)
from compressor.evaluation.seeds import OverSeeds, over_seeds
from compressor.evaluation.sequences import SequenceQuality, sequence_quality, temporal_coherence
from compressor.evaluation.strain import strain_curve, track_points
from compressor.evaluation.super_resolution import SuperResolution, Upscaled, super_resolution

__all__ = [
    "ClassChange",
    "ClassComparison",
    "Classification",
    "Interval",
    "OverSeeds",
    "Predictions",
    "RecordMetric",
    "RecordPredictions",
    "SequenceQuality",
    "SuperResolution",
    "Upscaled",
    "balanced_accuracy",
    "classification",
    "classify",
    "classify_records",
    "compare_classes",
    "energy_distance",
    "features_of",
    "frechet_distance",
    "kernel_distance",
    "lpips",
    "macro_f1",
    "mae",
    "mse",
    "over_seeds",
    "pooled",
    "psnr",
    "psnr_of_each",
    "record_predictions",
    "sequence_quality",
    "ssim",
    "strain_curve",
    "super_resolution",
    "t_interval",
    "temporal_coherence",
    "track_points",
    "wilson_interval",
]
