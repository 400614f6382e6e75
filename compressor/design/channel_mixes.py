"""How a kernel in closed form is spread over input channels: unit vectors [m, I] of weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from compressor.filters.cosines import cosine_rows

__all__ = ["ChannelMixes", "cosines", "each", "equal"]

# From the number of input channels I to unit rows [m, I], in float64.
ChannelMixes = Callable[[int], Tensor]


def equal(channels: int) -> Tensor:
    """One row: all channels alike, 1/√I each, which reads brightness only.

    >>> equal(4)
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]], dtype=torch.float64)
    """
    return torch.full((1, channels), 1 / math.sqrt(channels), dtype=torch.float64)


def each(channels: int) -> Tensor:
    """I rows: every channel by itself.

    >>> each(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return torch.eye(channels, dtype=torch.float64)


def cosines(channels: int) -> Tensor:
    """I orthonormal rows, the DCT-II over channels: of red, green, blue the sum and two opponent colours.

    >>> cosines(3).mul(10).round().tolist()
    [[6.0, 6.0, 6.0], [7.0, 0.0, -7.0], [4.0, -8.0, 4.0]]
    """
    return cosine_rows(channels)
