"""In which precision statistics are kept."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["wide_type", "widened"]


def wide_type(tensor: Tensor) -> torch.dtype:
    """float64, or float32 on devices that have nothing wider."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def widened(tensor: Tensor) -> Tensor:
    """The tensor in `wide_type`."""
    return tensor.to(wide_type(tensor))
