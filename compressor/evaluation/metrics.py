"""Rates of a whole validation split as plain functions, for early stopping and model selection."""

from __future__ import annotations

from torch import Tensor, nn

from compressor.evaluation.classification import Classification, classification
from compressor.evaluation.predictions import classify

__all__ = ["balanced_accuracy", "macro_f1"]


def balanced_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The mean recall of the classes of a split: logits [N, n_classes] against labels [N].

    For `training.Validation(batches=..., metric=balanced_accuracy)`; faults are those of `classify`,
    and classes without a sample are left out with an AbsentClassWarning.

    >>> import torch
    >>> balanced_accuracy(torch.eye(2)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1]))
    0.5
    """
    return _rates(outputs, targets).balanced_accuracy.value


def macro_f1(outputs: Tensor, targets: Tensor) -> float:
    """The mean F1 of the classes of a split, see `balanced_accuracy`.

    >>> import torch
    >>> round(macro_f1(torch.eye(2)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1])), 3)
    0.429
    """
    return _rates(outputs, targets).macro_f1.value


def _rates(outputs: Tensor, targets: Tensor) -> Classification:
    return classification(classify(nn.Identity(), [(outputs, targets)]), resamples=100)
