"""Class labels that fit the outputs, or an error that says which do not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import CrossEntropyLoss, NLLLoss

from compressor.errors import InputError

__all__ = ["are_labels", "check_labels", "ignored_label"]


def are_labels(output: Tensor, target: Tensor) -> bool:
    """Whether a target [N, …] holds a class number for each output [N, C, …].

    >>> are_labels(torch.zeros(4, 3), torch.zeros(4).long()), are_labels(torch.zeros(4, 3), torch.zeros(4, 3))
    (True, False)
    """
    whole = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    return whole and output.dim() > 1 and target.shape == output.shape[:1] + output.shape[2:]


def check_labels(labels: Tensor, classes: int, *, ignored: int | None = None) -> None:
    """Raise InputError where a label is not in 0 … classes - 1 (or `ignored`).

    On a GPU such a label would end the whole process without saying which it was.

    >>> check_labels(torch.tensor([0, 2]), 3)
    """
    seen = labels if ignored is None else labels[labels != ignored]
    if seen.numel() == 0:
        return
    low, high = (int(value) for value in seen.aminmax())
    if low < 0 or high >= classes:
        more = f", or give the model's last layer {high + 1} outputs" if high >= classes else ""
        raise InputError(
            f"labels must lie in 0 to {classes - 1}, as the model has {classes} outputs; got labels from "
            f"{low} to {high}. Count classes from 0{more}"
        )


def ignored_label(loss: object) -> tuple[bool, int | None]:
    """Whether a loss of torch takes class labels, and which one it leaves out."""
    if loss is F.cross_entropy or loss is F.nll_loss:
        return True, -100
    if isinstance(loss, CrossEntropyLoss | NLLLoss):
        return True, loss.ignore_index
    return False, None
