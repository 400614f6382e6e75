"""The sector that an echocardiogram fills, estimated from the images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["sector_mask"]

_DIRECTIONS = 128


def sector_mask(frames: Tensor, *, threshold: float = 8 / 255) -> Tensor:
    """Where the sector is, bool [N, 1, H, W, 1]: the convex hull of all pixels that are ever bright.

    `frames` [N, 1, H, W, T] are clean sequences, 0 to 1. A pixel counts once it exceeds `threshold` together
    with at least three of its eight neighbours, so that single pixels of compression noise do not. The hull
    is the intersection of half planes in 128 directions, at most half a pixel too large; it also fills the
    few pixels of the concave arc that a curved transducer leaves at the apex. Dark sides of a sector that
    no frame shows are lost. Raises InputError for another layout, and where nothing is bright.

    >>> frames = torch.zeros(1, 1, 16, 16, 2)
    >>> frames[:, :, 4:12, 5:9] = 0.5
    >>> mask = sector_mask(frames)
    >>> mask.shape, int(mask.sum())
    (torch.Size([1, 1, 16, 16, 1]), 32)
    """
    if frames.dim() != 5 or frames.shape[1] != 1 or not frames.is_floating_point():
        raise InputError(
            f"sector_mask: frames must be floating-point [N, 1, H, W, T], got {frames.dtype} "
            f"{list(frames.shape)}"
        )
    if not bool(torch.isfinite(frames).all()):
        raise InputError("sector_mask: frames hold values that are not finite (NaN or infinity)")
    bright = (frames.amax(4) > threshold).to(frames.dtype)
    neighbours = torch.nn.functional.avg_pool2d(bright, 3, 1, 1, divisor_override=1)
    bright_NHW = ((bright > 0) & (neighbours >= 4))[:, 0]
    for index, one in enumerate(bright_NHW):
        if not bool(one.any()):
            raise InputError(
                f"sector_mask: sequence {index} has no region brighter than {threshold:.3g} of 1; is it "
                f"empty, or still to be scaled?"
            )
    return _hull(bright_NHW)[:, None, :, :, None]


def _hull(points_NHW: Tensor) -> Tensor:
    """The pixels between the outermost points in every direction."""
    height, width = points_NHW.shape[1:]
    rows = torch.arange(height, device=points_NHW.device, dtype=torch.float32)
    columns = torch.arange(width, device=points_NHW.device, dtype=torch.float32)
    inside = torch.ones_like(points_NHW)
    for step in range(_DIRECTIONS):
        angle = 2 * math.pi * step / _DIRECTIONS
        along_HW = math.sin(angle) * rows[:, None] + math.cos(angle) * columns
        furthest_N = along_HW.where(points_NHW, -torch.inf).amax((1, 2))
        inside &= along_HW <= furthest_N[:, None, None] + 1e-3  # rounding of the sum
    return inside
