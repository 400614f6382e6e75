"""Rings of kernels: how much of a weight lies away from the centre, and the weight without outer rings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import kernel_matrix

__all__ = ["centre", "cropped_size", "energy_outside", "n_rings"]


def cropped_size(kernel_size: Sequence[int], rings: int) -> tuple[int, ...]:
    """The size of a kernel without its `rings` outer rings; odd sides end at 1, even ones at 2.

    >>> cropped_size((7, 5), 2), cropped_size((5, 1), 1), cropped_size((4,), 3)
    ((3, 1), (3, 1), (2,))
    """
    if isinstance(rings, bool) or rings < 0:
        raise InputError(f"rings = {rings!r}: a number of outer rings, at least 0, is expected")
    return tuple(max(size - 2 * rings, 2 - size % 2) for size in kernel_size)


def n_rings(kernel_size: Sequence[int]) -> int:
    """How many outer rings a kernel can lose.

    >>> n_rings((7, 5)), n_rings((4,)), n_rings((1, 1))
    (3, 1, 0)
    """
    return max((size - 1) // 2 for size in kernel_size)


def centre(weight: Tensor, rings: int) -> Tensor:
    """The weight [O, I, *k] without the `rings` outer rings of its kernels: a view.

    >>> import torch
    >>> centre(torch.arange(25.0).view(1, 1, 5, 5), 1).flatten().tolist()
    [6.0, 7.0, 8.0, 11.0, 12.0, 13.0, 16.0, 17.0, 18.0]
    """
    size = weight.shape[2:]
    kept = cropped_size(size, rings)
    inner = (slice((k - n) // 2, (k + n) // 2) for k, n in zip(size, kept, strict=True))
    return weight[(slice(None), slice(None), *inner)]


def energy_outside(weight: Tensor, rings: int) -> float:
    """The share of Σ w² that lies in the `rings` outer rings of the kernels of a weight [O, I, *k].

    Sides of different lengths lose as many places on either side each, as long as they have them. 0 for a
    weight of zeros. Raises InputError where a value is not finite.

    >>> import torch
    >>> energy_outside(torch.ones(4, 2, 3, 3), 1)  # 8 of 9
    0.8888888888888888
    """
    wide = kernel_matrix(weight).to(device="cpu", dtype=torch.float64)
    energy = wide.square().reshape(weight.shape)
    total = float(energy.sum())
    centre(energy, rings).zero_()
    return float(energy.sum()) / total if total else 0.0
