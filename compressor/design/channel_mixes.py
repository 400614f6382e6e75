"""How a kernel in closed form is spread over input channels: unit vectors [m, I] of weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

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
    at = torch.arange(channels, dtype=torch.float64)
    rows = torch.cos(math.pi * (2 * at + 1) * at[:, None] / (2 * channels)) * math.sqrt(2 / channels)
    rows[0] /= math.sqrt(2)
    # Of the middle of an odd number of channels a cosine is 0, and rounding makes it 1e-17.
    return torch.where(rows.abs() < 1e-15, 0.0, rows)
