"""The class of each sample of a batch, read from what the loss compares to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.errors import ScoreError

__all__ = ["class_labels"]


def class_labels(target: object, n_classes: int | None = None) -> Tensor:
    """The labels [N] of a batch, integers from 0 on (and below `n_classes` where it is given).

    Of a mapping it is the entry "labels". Raises ScoreError for anything else than one integer for each
    sample, and for labels out of range.

    >>> class_labels({"labels": [0, 2, 1]})
    tensor([0, 2, 1])
    """
    found = target["labels"] if isinstance(target, Mapping) and "labels" in target else target
    if isinstance(found, list | tuple):
        try:
            found = torch.as_tensor(found)
        except (TypeError, ValueError, RuntimeError):
            found = target
    if not isinstance(found, Tensor):
        raise ScoreError(
            f"the targets of a batch are {type(found).__name__}, expected a tensor of class labels [N], or a "
            'mapping with one as "labels"'
        )
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool or found.ndim != 1:
        raise ScoreError(
            f"the targets of a batch are {str(found.dtype).removeprefix('torch.')} of shape "
            f"{list(found.shape)}, expected one integer for each sample: for [N, 1] .squeeze(1), for scores "
            "of classes .argmax(1), for 0 and 1 in another type .long()"
        )
    labels = found.long()
    wrong = (labels < 0) if n_classes is None else (labels < 0) | (labels >= n_classes)
    if wrong.any():
        known = "from 0 on" if n_classes is None else f"0 to {n_classes - 1}"
        raise ScoreError(
            f"label {int(labels[wrong][0])} is out of range, expected classes {known}; leave samples "
            "without a class out of the batches, or mend n_classes"
        )
    return labels
