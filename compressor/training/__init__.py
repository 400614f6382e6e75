"""Recovery with labels: a training loop, its options, and what can be attached to it or to the user's own."""

from __future__ import annotations

from compressor.training.attaching import AttachedLoss, ModelLoss, Regularizer
from compressor.training.fine_tune import fine_tune_
from compressor.training.history import History
from compressor.training.recipe import Recipe, cosine
from compressor.training.validation import Validation, accuracy

__all__ = [
    "AttachedLoss",
    "History",
    "ModelLoss",
    "Recipe",
    "Regularizer",
    "Validation",
    "accuracy",
    "cosine",
    "fine_tune_",
]
