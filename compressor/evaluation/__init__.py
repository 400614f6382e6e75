"""How well a classifier does class by class, with intervals, and which classes pruning hurts most.

Every number is computed on the whole set, never averaged over batches: an average of batch means of
macro recall is no macro recall.
"""

from compressor.evaluation.classification import Classification, classification
from compressor.evaluation.comparison import ClassChange, ClassComparison, compare_classes
from compressor.evaluation.intervals import Interval, t_interval, wilson_interval
from compressor.evaluation.metrics import balanced_accuracy, macro_f1
from compressor.evaluation.predictions import Predictions, classify
from compressor.evaluation.seeds import OverSeeds, over_seeds

__all__ = [
    "ClassChange",
    "ClassComparison",
    "Classification",
    "Interval",
    "OverSeeds",
    "Predictions",
    "balanced_accuracy",
    "classification",
    "classify",
    "compare_classes",
    "macro_f1",
    "over_seeds",
    "t_interval",
    "wilson_interval",
]
