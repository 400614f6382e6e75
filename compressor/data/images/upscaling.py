"""Colour images enlarged by a network for luminance; the colour differences, seen less, bicubically."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from compressor.data.images.colour import rgb_to_ycbcr, ycbcr_to_rgb
from compressor.data.images.resizing import resize
from compressor.errors import InputError

__all__ = ["Upscaler", "upscale_colour"]

# Luminance [N, 1, h, w] as floats in 0..1 to [N, 1, r * h, r * w]: a module in eval mode, or any function.
Upscaler = Callable[[Tensor], Tensor]


@torch.no_grad()
def upscale_colour(images: Tensor, upscale: Upscaler) -> Tensor:
    """The images uint8 [N, C, h, w], N of RGB or grey, as uint8 [N, C, r * h, r * w] on their device.

    Y goes through `upscale`, Cb and Cr are enlarged bicubically; a grey image (C = 1) is luminance alone.
    r is what `upscale` makes of the height. Raises InputError for other images, and where `upscale` returns
    anything but one channel, r times as high and as wide.

    Source: Shi et al. 2016, arXiv 1609.05158, section 3.

    >>> twice = torch.nn.Upsample(scale_factor=2)
    >>> upscale_colour(torch.zeros(1, 3, 4, 5, dtype=torch.uint8), twice).shape
    torch.Size([1, 3, 8, 10])
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError(
            f"upscale_colour: expected uint8 [N, 3, h, w] or [N, 1, h, w], "
            f"got {images.dtype} {list(images.shape)}"
        )
    coded = (images if images.shape[1] == 1 else rgb_to_ycbcr(images)).float() / 255
    bright = upscale(coded[:, :1])
    _check(images, bright)
    enlarged = bright.to(coded).clamp(0, 1)
    if images.shape[1] == 3:
        chroma = _bicubic(coded[:, 1:], (bright.shape[-2], bright.shape[-1]))
        enlarged = ycbcr_to_rgb(torch.cat([enlarged, chroma], dim=1))
    return (enlarged * 255 + 0.5).floor().to(torch.uint8)  # floats until here: bytes twice would band


def _bicubic(chroma: Tensor, size: tuple[int, int]) -> Tensor:
    """By torch's own where it is there: several times as fast, and other at borders only."""
    if chroma.device.type in ("cpu", "cuda"):
        return interpolate(chroma, size=size, mode="bicubic", antialias=True)
    return resize(chroma, size)


def _check(images: Tensor, bright: Tensor) -> None:
    number, _, height, width = images.shape
    ratio = bright.shape[-2] / height if bright.ndim == 4 else 0.0
    if bright.ndim != 4 or bright.shape[:2] != (number, 1) or bright.shape[-1] != ratio * width or ratio < 1:
        raise InputError(
            f"upscale_colour: the upscaler made {list(bright.shape)} of [{number}, 1, {height}, {width}], "
            f"expected [{number}, 1, r * {height}, r * {width}]; it must take one channel of luminance"
        )
    if not bool(torch.isfinite(bright).all()):
        raise InputError("upscale_colour: the upscaler returned numbers that are not finite")
