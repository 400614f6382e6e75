"""How large images become small ones: the degradations that super-resolution is trained and tested on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from compressor.data.images.resizing import resample, rescale
from compressor.errors import InputError

__all__ = ["Bicubic", "Downscaling", "GaussianSubsampling"]


class Downscaling(Protocol):
    """Anything that takes images [..., H, W] to [..., H / scale, W / scale], of the same dtype."""

    @property
    def scale(self) -> int:
        """How many times smaller the result is."""

    def __call__(self, images: Tensor) -> Tensor:
        """The small images."""


@dataclass(frozen=True)
class Bicubic:
    """Bicubic with antialiasing (`rescale`), the degradation that super-resolution is compared on.

    >>> Bicubic(3)(torch.zeros(1, 9, 6, dtype=torch.uint8)).shape
    torch.Size([1, 3, 2])
    """

    scale: int

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def __call__(self, images: Tensor) -> Tensor:
        """The small images; bytes are rounded."""
        _check_sides(images, self.scale)
        return rescale(images, 1 / self.scale)


@dataclass(frozen=True)
class GaussianSubsampling:
    """A Gaussian blur of `sigma` pixels, of which every `scale`-th is kept: ESPCN's own degradation.

    Source: Shi et al. 2016, arXiv 1609.05158, section 3.2, which gives no sigma; here scale / 2 unless it is
    given. Centres of small pixels lie in the middle of their `scale` x `scale` large ones, also for an even
    scale (where no pixel is kept as it is), so that nothing is shifted. The kernel ends at 4 sigma.

    >>> GaussianSubsampling(2)(torch.full((1, 4, 4), 9, dtype=torch.uint8)).unique()
    tensor([9], dtype=torch.uint8)
    """

    scale: int
    sigma: float | None = None

    def __post_init__(self) -> None:
        _check_scale(self.scale)
        if self.sigma is not None and not (math.isfinite(self.sigma) and self.sigma > 0):
            raise InputError(f"GaussianSubsampling: sigma must be positive and finite, got {self.sigma!r}")

    def __call__(self, images: Tensor) -> Tensor:
        """The small images; bytes are rounded once."""
        _check_sides(images, self.scale)
        sigma = self.scale / 2 if self.sigma is None else self.sigma

        def kernel(x: Tensor) -> Tensor:
            return torch.where(x.abs() < 4 * sigma, (-0.5 * (x / sigma) ** 2).exp(), torch.zeros_like(x))

        floats = images.double() if images.dtype == torch.uint8 else images
        for axis in (images.ndim - 2, images.ndim - 1):
            size = images.shape[axis] // self.scale
            floats = resample(floats, axis, size, 1 / self.scale, kernel, 4 * sigma)
        if images.dtype == torch.uint8:
            return (floats + 0.5).floor().clamp(0, 255).to(torch.uint8)
        return floats


def _check_scale(scale: int) -> None:
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise InputError(f"downscaling: scale must be an integer of at least 1, got {scale!r}")


def _check_sides(images: Tensor, scale: int) -> None:
    height, width = images.shape[-2:]
    if height % scale or width % scale or not height or not width:
        raise InputError(
            f"downscaling by {scale}: sides must be multiples of {scale}, got {height}x{width}; "
            f"crop it with cropped_to_multiple(image, {scale})"
        )
