"""A kernel as a picture: of one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_kernel", "picture_shape"]


def draw_kernel(axes: Axes, kernel: Tensor, *, limit: float) -> None:
    """Draw a kernel [*k], blue where it is negative, red where positive, white at 0; colours end at `limit`.

    One of one dimension is a single row; one of three its slices along the first axis, side by side.
    """
    picture = _flat(kernel.detach().cpu().double())
    axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def picture_shape(kernel_size: Sequence[int]) -> tuple[int, int]:
    """The rows and columns of a kernel's picture.

    >>> picture_shape((5,)), picture_shape((3, 2)), picture_shape((3, 3, 3))
    ((1, 5), (3, 2), (3, 11))
    """
    rows, columns = _flat(torch.zeros(*kernel_size)).shape
    return rows, columns


def _flat(kernel: Tensor) -> npt.NDArray[np.float64]:
    if kernel.ndim == 1:
        kernel = kernel[None]
    while kernel.ndim > 2:
        gap = torch.full_like(kernel[0], float("nan"))[..., :1]
        slices = [part for piece in kernel for part in (piece, gap)][:-1]
        kernel = torch.cat(slices, dim=-1)
    pixels: npt.NDArray[np.float64] = kernel.numpy()
    return pixels
