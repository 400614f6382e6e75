"""Losses, labels and batches that cannot be trained on, said in words."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compressor.errors import InputError
from compressor.training.attaching import Loss
from compressor.training.labels import check_labels, ignored_label

__all__ = ["checked_loss", "single_sample"]


def checked_loss(loss: Loss, output: Any, target: Any, *, known: object) -> Tensor:
    """The loss [] of an output; `known` is the loss as the user gave it.

    Raises InputError for labels that are no classes, and for what is not one number with a gradient.
    """
    labelled = isinstance(output, Tensor) and isinstance(target, Tensor) and _are_labels(output, target)
    takes_labels, ignored = ignored_label(known)
    if labelled and takes_labels:
        check_labels(target, output.shape[1], ignored=ignored)
    try:
        value = loss(output, target)
    except IndexError:  # on a CPU, a label that is no class
        if labelled:
            check_labels(target, output.shape[1])
        raise
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        constant = isinstance(value, Tensor) and not value.requires_grad
        raise InputError(
            f"expected the loss as one number that depends on the weights, got {found}"
            f"{' without gradient' if constant else ''}; loss(output, target) must reduce, for example with "
            f".mean(), by torch operations"
        )
    return value


def single_sample(error: ValueError) -> InputError | None:
    """What to do, where a batch norm met a single sample; None where that is not what the error says."""
    if "more than 1 value per channel" not in str(error):
        return None
    return InputError(
        f"a batch norm cannot train on one value per channel ({error}): the batch has a single sample. Load "
        f"with drop_last=True, in larger batches, or train with Recipe(freeze_batch_norm=True)"
    )


def _are_labels(output: Tensor, target: Tensor) -> bool:
    """Whether a target [N, …] holds a class index for each output [N, C, …]."""
    whole = not (target.is_floating_point() or target.is_complex())
    return whole and output.dim() > 1 and target.shape == output.shape[:1] + output.shape[2:]
