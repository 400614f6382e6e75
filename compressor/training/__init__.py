"""Training around pruning: a loop with its options, sparse training, and what goes into loops of others."""

from __future__ import annotations

from compressor.training import sparsity
from compressor.training.adversarial import Adversarial, ChangedPixels
from compressor.training.attaching import Attachable, AttachedLoss, ModelLoss
from compressor.training.distillation import Distillation
from compressor.training.fine_tune import fine_tune_
from compressor.training.gradual import GradualPruning
from compressor.training.history import History
from compressor.training.imbalance import balanced_sampler, class_counts, class_weights, effective_numbers
from compressor.training.losses import Focal, LogitAdjusted, WeightedCrossEntropy
from compressor.training.mapped import Mapped
from compressor.training.published import mask_sparsity_fine_tuning, mask_sparsity_training
from compressor.training.rates import Stepped, step_rates
from compressor.training.recipe import Recipe, cosine
from compressor.training.sparsity import Regularizer
from compressor.training.validation import Validation, accuracy

__all__ = [
    "Adversarial",
    "Attachable",
    "AttachedLoss",
    "ChangedPixels",
    "Distillation",
    "Focal",
    "GradualPruning",
    "History",
    "LogitAdjusted",
    "Mapped",
    "ModelLoss",
    "Recipe",
    "Regularizer",
    "Stepped",
    "Validation",
    "WeightedCrossEntropy",
    "accuracy",
    "balanced_sampler",
    "class_counts",
    "class_weights",
    "cosine",
    "effective_numbers",
    "fine_tune_",
    "mask_sparsity_fine_tuning",
    "mask_sparsity_training",
    "sparsity",
    "step_rates",
]
