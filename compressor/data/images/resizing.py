"""Bicubic resizing with antialiasing that equals MATLAB's imresize, bytes to the bit.

Source: R. Keys 1981, "Cubic Convolution Interpolation for Digital Image Processing", with a = -1/2; for a
smaller image the kernel is stretched by the factor, and pixels beyond a border are those mirrored at it.
torch's `interpolate(mode="bicubic", antialias=True)` is the same but at borders, where it leaves out the
pixels that are not there: up to 16 levels away from the super-resolution literature's small images of Set5,
which these functions reproduce without one different byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["cubic", "resample", "rescale", "resize"]

Kernel = Callable[[Tensor], Tensor]


def resize(images: Tensor, size: tuple[int, int], *, antialias: bool = True) -> Tensor:
    """Images [..., H, W] at another size (height, width) by bicubic interpolation, on their device.

    uint8 in, uint8 out, rounded after the rows and after the columns, as MATLAB does. Floats keep their
    dtype, are neither rounded nor clipped, and gradients flow through. Without `antialias` a smaller image
    takes the four nearest pixels of each axis only.

    >>> resize(torch.arange(16.0).view(1, 4, 4), (2, 2)).shape
    torch.Size([1, 2, 2])
    """
    _check(images)
    pair = isinstance(size, tuple | list) and len(size) == 2
    if not pair or not all(isinstance(n, int) and n >= 1 for n in size):
        raise InputError(f"resize: size must be (height, width), integers of at least 1, got {size!r}")
    height, width = images.shape[-2:]
    factors = size[0] / height, size[1] / width
    return _both(images, size, factors, antialias)


def rescale(images: Tensor, factor: float, *, antialias: bool = True) -> Tensor:
    """Images [..., H, W] `factor` times as large in both directions, to ceil(factor · H) x ceil(factor · W).

    See `resize`; with a size that is not whole the factor counts, not the rounded size, as in MATLAB.

    >>> rescale(torch.zeros(3, 10, 7), 1 / 3).shape
    torch.Size([3, 4, 3])
    """
    _check(images)
    if not (math.isfinite(factor) and factor > 0):
        raise InputError(f"rescale: factor must be positive and finite, got {factor!r}")
    height, width = images.shape[-2:]
    # A third of 30 is 10, also where 30 * (1/3) is a little more.
    size = math.ceil(height * factor - 1e-9), math.ceil(width * factor - 1e-9)
    return _both(images, size, (factor, factor), antialias)


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1/2 at distances `x`; 0 from 2 on.

    >>> cubic(torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]))
    tensor([ 1.0000,  0.5625,  0.0000, -0.0625,  0.0000])
    """
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def resample(images: Tensor, axis: int, size: int, factor: float, kernel: Kernel, support: float) -> Tensor:
    """Floats with `size` weighted means along an axis, about centres 1 / `factor` apart.

    `kernel` takes distances in pixels of the input and is 0 from `support` on; weights are normalised, and
    positions mirrored at the borders.

    >>> resample(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 1, 2, 0.5, lambda x: 1.0 * (x.abs() < 1), 1)
    tensor([[1.5000, 3.5000]])
    """
    length = images.shape[axis]
    centres_n = (torch.arange(size, dtype=torch.float64) + 0.5) / factor - 0.5
    taps = math.ceil(2 * support) + 2
    places_nt = (centres_n - support).floor()[:, None] + torch.arange(taps, dtype=torch.float64)
    weights_nt = kernel(centres_n[:, None] - places_nt)
    weights_nt = weights_nt / weights_nt.sum(dim=1, keepdim=True)
    mirrored = places_nt.long() % (2 * length)
    places = torch.where(mirrored < length, mirrored, 2 * length - 1 - mirrored).to(images.device)
    shape = [1] * images.ndim
    shape[axis] = size
    weights = weights_nt.to(images)
    total: Tensor | None = None
    for tap in range(taps):
        if bool((weights_nt[:, tap] != 0).any()):
            part = images.index_select(axis, places[:, tap]) * weights[:, tap].view(shape)
            total = part if total is None else total + part
    assert total is not None  # weights sum to one
    return total


def _both(images: Tensor, size: tuple[int, int], factors: tuple[float, float], antialias: bool) -> Tensor:
    """Along the axis that shrinks most first, as MATLAB does; rows before columns where they are equal."""
    result = images
    for axis in sorted((0, 1), key=lambda axis: factors[axis]):
        stretch = min(factors[axis], 1.0) if antialias else 1.0

        def kernel(x: Tensor, stretch: float = stretch) -> Tensor:
            return cubic(stretch * x)

        exact = resample(
            _wide(result), result.ndim - 2 + axis, size[axis], factors[axis], kernel, 2 / stretch
        )
        result = _narrow(exact, images.dtype)
    return result


def _wide(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images.to(torch.float32 if images.device.type == "mps" else torch.float64)
    return images.float() if images.dtype in (torch.float16, torch.bfloat16) else images


def _narrow(images: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint8:
        images = (images + 0.5).floor().clamp(0, 255)
    return images.to(dtype)


def _check(images: Tensor) -> None:
    kind = images.dtype == torch.uint8 or images.is_floating_point()
    if not kind or images.ndim < 2 or 0 in images.shape[-2:]:
        raise InputError(
            f"resizing: expected uint8 or floats [..., H, W], got {images.dtype} {list(images.shape)}"
        )
