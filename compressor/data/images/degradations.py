"""What restorations start from: noise, few pixels, missing pixels, no colour, each as a value that is called.

Source: G. Ohayon, T. Michaeli, M. Elad, 2025, "Posterior-Mean Rectified Flow", arXiv 2410.00418, section
5.2, with the numbers of the released code as defaults. Every degradation is clipped to [0, 1] at the end,
as there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.errors import InputError

__all__ = [
    "Colourless",
    "Degradation",
    "LowResolution",
    "MissingPixels",
    "Noisy",
    "gaussian",
    "require_images",
]


class Degradation(ABC):
    """Clean images [N, C, H, W] in [0, 1] to pairs (y, x) of observations and clean images."""

    def __call__(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The pair (y, x), anew in every call; without a generator from torch's global one.

        Raises InputError for images that are no floats [N, C, H, W] in [0, 1], or whose size does not fit.
        """
        require_images(type(self).__name__, x)
        return self.observed(x, generator), x

    @abstractmethod
    def observed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The observations y of checked images."""


@dataclass(frozen=True)
class Noisy(Degradation):
    """Gaussian noise: y = clip(x + σ n).

    >>> y, x = Noisy()(torch.full((1, 3, 64, 64), 0.5), generator=torch.Generator().manual_seed(0))
    >>> bool(0 <= y.min() and y.max() <= 1 and y.std() > 0.25)
    True
    """

    noise: float = 0.35

    def __post_init__(self) -> None:
        _check_noise(self)

    def observed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return (x + self.noise * gaussian(x, generator)).clamp(0, 1)


@dataclass(frozen=True)
class LowResolution(Degradation):
    """Fewer pixels: bicubic to 1/scale, clip, noise, every pixel `scale` times in both directions, clip.

    Antialiased as torch does it, which the released code uses; `images.resize` differs at the borders.

    >>> LowResolution(scale=4)(torch.rand(1, 3, 16, 16))[0][0, 0, :4, :4].unique().numel()
    1
    """

    scale: int = 8
    noise: float = 0.05

    def __post_init__(self) -> None:
        _check_noise(self)
        if not isinstance(self.scale, int) or self.scale < 1:
            raise InputError(f"LowResolution: scale must be an integer of at least 1, got {self.scale!r}")

    def observed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = x.shape[2:]
        if height % self.scale or width % self.scale:
            raise InputError(
                f"LowResolution: images of {height}x{width} do not divide by scale {self.scale}; crop them"
            )
        size = height // self.scale, width // self.scale
        small = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)
        small = small + self.noise * gaussian(small, generator)
        return F.interpolate(small, (height, width), mode="nearest-exact").clamp(0, 1)


@dataclass(frozen=True)
class MissingPixels(Degradation):
    """Pixels set to zero at random, the same ones in every channel, then noise everywhere and a clip.

    >>> y, _ = MissingPixels(noise=0.0)(torch.ones(1, 3, 100, 100))
    >>> bool(0.08 < y.mean() < 0.12)
    True
    """

    missing: float = 0.9
    noise: float = 0.1

    def __post_init__(self) -> None:
        _check_noise(self)
        if not 0 <= self.missing < 1:
            raise InputError(
                f"MissingPixels: missing must be a fraction from 0, below 1, got {self.missing!r}"
            )

    def observed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        device = x.device if generator is None else generator.device
        drawn = torch.rand((len(x), 1, *x.shape[2:]), generator=generator, device=device).to(x.device)
        return (x * (drawn >= self.missing) + self.noise * gaussian(x, generator)).clamp(0, 1)


@dataclass(frozen=True)
class Colourless(Degradation):
    """No colour: the mean of the channels [N, 1, H, W] with noise, clipped.

    >>> Colourless()(torch.rand(2, 3, 8, 8))[0].shape
    torch.Size([2, 1, 8, 8])
    """

    noise: float = 0.25

    def __post_init__(self) -> None:
        _check_noise(self)

    def observed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        grey = x.mean(1, keepdim=True)
        return (grey + self.noise * gaussian(grey, generator)).clamp(0, 1)


def gaussian(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise like a tensor, drawn where the generator is.

    >>> gaussian(torch.zeros(2, 3), None).shape
    torch.Size([2, 3])
    """
    device = like.device if generator is None else generator.device
    drawn = torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype)
    return drawn.to(like.device)


def require_images(name: str, x: Tensor) -> None:
    """Raise InputError for what is no batch of images [N, C, H, W] in [0, 1].

    >>> require_images("Noisy", torch.full((1, 3, 2, 2), 255.0))
    Traceback (most recent call last):
        ...
    compressor.errors.InputError: Noisy: images must be finite and in [0, 1], got 255 to 255; divide 8-bit
    images by 255
    """
    if not x.is_floating_point() or x.dim() != 4 or 0 in x.shape:
        raise InputError(f"{name}: expected floats [N, C, H, W], got {x.dtype} {list(x.shape)}")
    low, high = (float(value) for value in x.aminmax())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise InputError(
            f"{name}: images must be finite and in [0, 1], got {low:.4g} to {high:.4g}; divide 8-bit images "
            f"by 255"
        )


def _check_noise(degradation: Noisy | LowResolution | MissingPixels | Colourless) -> None:
    noise = degradation.noise
    if not (math.isfinite(noise) and noise >= 0):
        raise InputError(f"{type(degradation).__name__}: noise must be at least 0 and finite, got {noise!r}")
