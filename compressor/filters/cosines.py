"""The discrete cosine transform, as rows and as kernels of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["cosine_rows", "dct_kernels"]


def cosine_rows(size: int) -> Tensor:
    """The orthonormal DCT-II [size, size] in float64, one frequency in each row, the slowest first.

    >>> cosine_rows(3).mul(10).round().tolist()
    [[6.0, 6.0, 6.0], [7.0, 0.0, -7.0], [4.0, -8.0, 4.0]]
    """
    at = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi * (2 * at + 1) * at[:, None] / (2 * size)) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    # Of the middle of an odd size a cosine is 0, and rounding makes it 1e-17.
    return torch.where(rows.abs() < 1e-15, 0.0, rows)


def dct_kernels(kernel_size: Sequence[int]) -> Tensor:
    """All K orthonormal kernels of the DCT-II [K, *kernel_size] in float64, low frequencies first.

    In any number of dimensions the products of those along each; the order is that of the sum of their
    frequencies (the diagonals of JPEG's zigzag), ties as they are counted.

    *Source: N. Ahmed, T. Natarajan, K. Rao, 1974, Discrete cosine transform.*

    >>> dct_kernels((2, 2))[1].round(decimals=6).tolist()
    [[0.5, -0.5], [0.5, -0.5]]
    """
    kernels, frequency = torch.ones(1, dtype=torch.float64), torch.zeros(1)
    for size in kernel_size:
        kernels = torch.einsum("a...,bi->ab...i", kernels, cosine_rows(size)).flatten(0, 1)
        frequency = (frequency[:, None] + torch.arange(size)).flatten()
    return kernels[torch.argsort(frequency, stable=True)].reshape(-1, *kernel_size)
