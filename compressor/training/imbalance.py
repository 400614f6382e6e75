"""How rare the classes are: counts, weights and a sampler that make up for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from compressor.errors import InputError
from compressor.training import processes

__all__ = ["balanced_sampler", "class_counts", "class_weights", "effective_numbers"]


def class_counts(labels: Tensor | Sequence[int], *, classes: int | None = None) -> Tensor:
    """How many samples each class has [classes], int64.

    `classes` is one more than the largest label where it is not given. Raises InputError where a class has no
    sample, as no weight could make up for that, and for labels that are no classes.

    >>> class_counts([0, 1, 0, 0])
    tensor([3, 1])
    """
    try:
        given = labels.detach().cpu() if isinstance(labels, Tensor) else torch.from_numpy(np.asarray(labels))
    except TypeError as error:  # of strings and objects
        raise InputError(f"labels must be class numbers, got {np.asarray(labels).dtype} ({error})") from error
    if given.dim() != 1 or given.numel() == 0 or given.is_floating_point() or given.is_complex():
        raise InputError(
            f"labels must be a list of class numbers, one for each sample, got {list(given.shape)} of "
            f"{given.dtype}"
        )
    low, high = int(given.min()), int(given.max())
    n_classes = high + 1 if classes is None else classes
    if low < 0 or high >= n_classes:
        raise InputError(f"labels must lie in 0 to {n_classes - 1}, got labels from {low} to {high}")
    counts = torch.bincount(given.long(), minlength=n_classes)
    absent = torch.nonzero(counts == 0).flatten().tolist()
    if absent:
        raise InputError(
            f"no sample of class {', '.join(map(str, absent))} among {len(given)} labels (counts "
            f"{counts.tolist()}): nothing can be learnt of it. Stratify the split, leave the class out of "
            f"the model's outputs, or number the classes without gaps"
        )
    return counts


def effective_numbers(counts: Tensor | Sequence[int], beta: float) -> Tensor:
    """How many samples each class is worth when new ones overlap the old, float64 [classes].

    (1 − βⁿ) / (1 − β) of n samples. β = 0 makes all classes worth one sample, β → 1 the number they have.

    *Source: Y. Cui et al., 2019, arXiv 1901.05555, equation 2.*

    >>> effective_numbers([1, 2, 1000], 0.9)
    tensor([ 1.0000,  1.9000, 10.0000], dtype=torch.float64)
    """
    if not 0 <= beta < 1:
        raise InputError(f"beta must be at least 0 and below 1 (0.999, say), got {beta!r}")
    numbers = _checked(counts)
    # 1 − βⁿ without the cancellation of large β: −expm1(n log β).
    return torch.ones_like(numbers) if beta == 0 else -torch.expm1(numbers * math.log(beta)) / (1 - beta)


def class_weights(counts: Tensor | Sequence[int], *, beta: float | None = None) -> Tensor:
    """A weight for each class [classes], float64 with mean 1: the inverse of its number of samples.

    With `beta` the inverse of its effective number (*class-balanced loss, Y. Cui et al., 2019, arXiv
    1901.05555*, whose weights sum to the number of classes as well).

    >>> class_weights([30, 10])
    tensor([0.5000, 1.5000], dtype=torch.float64)
    """
    numbers = _checked(counts) if beta is None else effective_numbers(counts, beta)
    return (1 / numbers) / (1 / numbers).mean()


def balanced_sampler(
    labels: Tensor | Sequence[int],
    *,
    beta: float | None = None,
    classes: int | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> WeightedRandomSampler:
    """A sampler for a DataLoader that draws every class equally often, with replacement.

    With `beta` a class is drawn in proportion to samples / effective number (see `effective_numbers`):
    between the data's own frequencies (β = 0) and equal ones (β → 1). `samples` make an epoch, as many as
    there are labels by default; in several processes each draws its share of them, with a seed of its own.

    Raises InputError as `class_counts` does.

    >>> sampler = balanced_sampler([0] * 90 + [1] * 10, samples=1000)
    >>> drawn = torch.tensor(list(sampler))
    >>> 400 < int((drawn >= 90).sum()) < 600
    True
    """
    counts = class_counts(labels, classes=classes)
    own = torch.as_tensor(labels).cpu().long()
    total = len(own) if samples is None else samples
    if total < 1:
        raise InputError(f"samples must be at least 1, got {samples!r}")
    generator = torch.Generator().manual_seed(seed + processes.number())
    share = -(-total // processes.world())
    weights = class_weights(counts, beta=beta)[own]
    return WeightedRandomSampler(weights.tolist(), share, replacement=True, generator=generator)


def _checked(counts: Tensor | Sequence[int]) -> Tensor:
    try:
        numbers = torch.as_tensor(counts, dtype=torch.float64).cpu()
    except (TypeError, ValueError) as error:
        raise InputError(f"counts must be one number for each class, got {counts!r} ({error})") from error
    if numbers.dim() != 1 or numbers.numel() == 0 or not bool((numbers >= 1).all()):
        raise InputError(
            f"counts must hold at least one sample for each class, got {numbers.tolist()}; take "
            f"class_counts(labels)"
        )
    return numbers
