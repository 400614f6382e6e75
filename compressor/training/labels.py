"""Class labels that fit the outputs, or an error that says which do not."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import CrossEntropyLoss, NLLLoss

from compressor.errors import InputError

__all__ = ["check_labels", "ignored_label"]


def check_labels(labels: Tensor, classes: int, *, ignored: int | None = None) -> None:
    """Raise InputError where a label is not in 0 … classes - 1 (or `ignored`).

    On a GPU such a label would end the whole process without saying which it was.

    >>> import torch
    >>> check_labels(torch.tensor([0, 2]), 3)
    """
    seen = labels if ignored is None else labels[labels != ignored]
    if seen.numel() == 0:
        return
    low, high = (int(value) for value in seen.aminmax())
    if low < 0 or high >= classes:
        raise InputError(
            f"labels must lie in 0 to {classes - 1}, as the model has {classes} outputs; got labels from "
            f"{low} to {high}. Count classes from 0, or give the model's last layer {max(high, low) + 1} "
            f"outputs"
        )


def ignored_label(loss: object) -> tuple[bool, int | None]:
    """Whether a loss of torch takes class labels, and which one it leaves out."""
    if loss is F.cross_entropy or loss is F.nll_loss:
        return True, -100
    if isinstance(loss, CrossEntropyLoss | NLLLoss):
        return True, loss.ignore_index
    return False, None
