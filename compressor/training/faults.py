"""Losses, gradients, labels and batches that cannot be trained on, said in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import InputError, TrainingError
from compressor.training.attaching import Loss
from compressor.training.labels import are_labels, check_labels, ignored_label

__all__ = ["check_gradients", "checked_loss", "single_sample"]


def checked_loss(loss: Loss, output: Any, target: Any, *, known: object) -> Tensor:
    """The loss [] of an output; `known` is the loss as the user gave it.

    Raises InputError for labels that are no classes, and for what is not one number with a gradient.
    """
    labelled = isinstance(output, Tensor) and isinstance(target, Tensor) and are_labels(output, target)
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


def check_gradients(model: nn.Module, parameters: Sequence[nn.Parameter], where: str) -> None:
    """Raise TrainingError for gradients that are not finite: a step by them would ruin the weights.

    >>> net = nn.Linear(1, 1)
    >>> (0 * net(torch.zeros(1, 1))).sqrt().sum().backward()
    >>> check_gradients(net, list(net.parameters()), "epoch 1, batch 1")
    Traceback (most recent call last):
    compressor.errors.TrainingError: epoch 1, batch 1: the gradient of 'weight', 'bias' holds ...
    """
    found = [(parameter, _values(parameter.grad)) for parameter in parameters if parameter.grad is not None]
    # The largest absolute value of each: it never overflows, and is NaN where one value is.
    peaks = [torch.linalg.vector_norm(values, torch.inf) for _, values in found if values.numel()]
    if all(bool(torch.isfinite(some).all()) for some in _by_device(peaks)):
        return
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    bad = [repr(names.get(id(one), "?")) for one, values in found if not bool(torch.isfinite(values).all())]
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    raise TrainingError(
        f"{where}: the gradient of {', '.join(bad[:3])}{more} holds NaN or infinite values, and the loss is "
        f"finite; training was stopped, and the weights are those of the step before. Look for roots, "
        f"logarithms and divisions at 0 in the model and the loss, or lower lr"
    )


def _values(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _by_device(peaks: Sequence[Tensor]) -> list[Tensor]:
    """The numbers of each device and type as one tensor, so that each is waited for once."""
    places = dict.fromkeys((peak.device, peak.dtype) for peak in peaks)
    return [torch.stack([p for p in peaks if (p.device, p.dtype) == place]) for place in places]


def single_sample(error: ValueError) -> InputError | None:
    """What to do, where a batch norm met a single sample; None where that is not what the error says."""
    if "more than 1 value per channel" not in str(error):
        return None
    return InputError(
        f"a batch norm cannot train on one value per channel ({error}): the batch has a single sample. Load "
        f"with drop_last=True, in larger batches, or train with Recipe(freeze_batch_norm=True)"
    )
