"""Degradations of unknown kind and strength, as faces in old photographs have them.

Source: Z. Yue, C. C. Loy, 2024, "DifFace", arXiv 2212.06512, whose pipeline PMRF trains on
(G. Ohayon et al., 2025, arXiv 2410.00418, section 5.1): y = JPEG(down(x * k) + n) at the size of x, with
the ranges of the released configuration as defaults. Blur kernels are those of BasicSR.

Departures: JPEG is Pillow's, not OpenCV's, with the same halved chroma; the size after downsampling is
rounded down and at least 1; the direction of an anisotropic kernel is uniform over a half turn, which is
the same; every draw comes from one torch generator. The bilinear steps are torch's (no antialiasing, as
OpenCV's).
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.data.images.degradations import Degradation, gaussian, require_images
from compressor.errors import InputError
from compressor.extras import imported

__all__ = ["BlindFace", "gaussian_kernel", "jpeg"]

Range = tuple[float, float]


@dataclass(frozen=True)
class BlindFace(Degradation):
    """Pairs (y, x) of one size: blur, fewer pixels, noise, JPEG, back to the size, 8 bits.

    Every range is uniform: `sigma` in pixels, `scale` the factor of downsampling, `noise` in levels of
    255, `quality` of JPEG. `isotropic`, `flipped` and `grey` are probabilities; what is flipped or grey
    is so in y and in x. Needs the extra `images`. Images have 1 or 3 channels, and sides longer than half
    a kernel, whose reflection is blurred at borders.

    >>> y, x = BlindFace(kernel=9)(torch.rand(1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    >>> y.shape, bool(((y * 255).round() - y * 255).abs().max() < 1e-4)
    (torch.Size([1, 3, 16, 16]), True)
    """

    kernel: int = 41
    sigma: Range = (0.1, 15.0)
    scale: Range = (0.8, 32.0)
    noise: Range = (0.0, 20.0)
    quality: Range = (30.0, 100.0)
    isotropic: float = 0.5
    flipped: float = 0.5
    grey: float = 0.01

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, int) or self.kernel < 1 or self.kernel % 2 == 0:
            raise InputError(f"BlindFace: kernel must be an odd number of pixels, got {self.kernel!r}")
        least = {"sigma": 1e-3, "scale": 1e-3, "noise": 0.0, "quality": 1.0}
        for name, low in least.items():
            start, end = getattr(self, name)
            if not (low <= start <= end < math.inf) or (name == "quality" and end > 100):
                raise InputError(f"BlindFace: {name} must be a range from {low:g} up, got {(start, end)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("isotropic", "flipped", "grey") and not 0 <= value <= 1:
                raise InputError(f"BlindFace: {field.name} must be a probability, got {value!r}")

    def __call__(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The pair (y, x), see `Degradation`; some images are flipped or grey in both."""
        require_images("BlindFace", x)
        if x.shape[1] not in (1, 3) or min(x.shape[2:]) <= self.kernel // 2:
            raise InputError(
                f"BlindFace: expected 1 or 3 channels and sides of more than {self.kernel // 2} pixels, got "
                f"{list(x.shape)}; a smaller kernel needs smaller sides"
            )
        pairs = [self._pair(image, generator) for image in x]
        observed, clean = (torch.stack(images) for images in zip(*pairs, strict=True))
        return observed, clean

    def observed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The observations alone, of images neither flipped nor made grey."""
        return torch.stack([self._degraded(image, generator) for image in x])

    def _pair(self, image: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        if _drawn(0, 1, generator) < self.flipped:
            image = image.flip(2)
        observed = self._degraded(image, generator)
        if _drawn(0, 1, generator) < self.grey and len(image) == 3:
            observed, image = _grey(observed), _grey(image)
        return (observed * 255).round().clamp(0, 255) / 255, image

    def _degraded(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        """One image [C, H, W] through the pipeline, not yet rounded."""
        size = image.shape[1], image.shape[2]
        wide, narrow = _drawn(*self.sigma, generator), _drawn(*self.sigma, generator)
        turn = _drawn(-math.pi / 2, math.pi / 2, generator)
        if _drawn(0, 1, generator) < self.isotropic:
            narrow, turn = wide, 0.0
        half = self.kernel // 2
        weights = gaussian_kernel(self.kernel, sigmas=(wide, narrow), turn=turn).to(image)
        padded = F.pad(image[:, None], (half,) * 4, mode="reflect")
        blurred = F.conv2d(padded, weights[None, None]).transpose(0, 1)
        scale = _drawn(*self.scale, generator)
        small = tuple(max(1, int(side // scale)) for side in size)
        low = F.interpolate(blurred, small, mode="bilinear", align_corners=False)[0]
        low = (low + _drawn(*self.noise, generator) / 255 * gaussian(low, generator)).clamp(0, 1)
        low = jpeg(low, quality=int(_drawn(*self.quality, generator)))
        return F.interpolate(low[None], size, mode="bilinear", align_corners=False)[0]


def gaussian_kernel(size: int, *, sigmas: tuple[float, float], turn: float = 0.0) -> Tensor:
    """A Gaussian [size, size] of sum 1, of two standard deviations in pixels, turned by an angle (radians).

    >>> gaussian_kernel(3, sigmas=(0.5, 0.5)).sum().round(decimals=6)
    tensor(1.)
    """
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    weights = torch.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2))
    return (weights / weights.sum()).float()


def jpeg(image: Tensor, *, quality: int) -> Tensor:
    """An image [C, H, W] in [0, 1], grey or RGB, as it comes back from a JPEG file; needs the extra `images`.

    >>> jpeg(torch.full((3, 8, 8), 0.5), quality=90).shape
    torch.Size([3, 8, 8])
    """
    pillow: Any = imported("PIL.Image", extra="images", needed_for="a JPEG degradation")
    array = (image * 255).round().clamp(0, 255).byte().cpu().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    pillow.fromarray(array[:, :, 0] if len(image) == 1 else array).save(buffer, "JPEG", quality=quality)
    back = np.array(pillow.open(buffer)).reshape(array.shape)
    return torch.from_numpy(back).permute(2, 0, 1).to(image) / 255


def _grey(image: Tensor) -> Tensor:
    """The luminance of an RGB image in all three channels (ITU-R BT.601, as OpenCV)."""
    weights = torch.tensor([0.299, 0.587, 0.114]).to(image)
    return torch.einsum("c,chw->hw", weights, image).expand_as(image)


def _drawn(low: float, high: float, generator: torch.Generator | None) -> float:
    device = torch.device("cpu") if generator is None else generator.device
    return low + (high - low) * float(torch.rand((), generator=generator, device=device, dtype=torch.float64))
