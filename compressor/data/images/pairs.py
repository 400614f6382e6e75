"""Test images as pairs: the luminance of a large image, and the small one made of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from compressor.data.images.colour import luminance
from compressor.data.images.downscaling import Downscaling
from compressor.errors import InputError

__all__ = ["Pair", "cropped_to_multiple", "luminance_pairs"]

log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A small image and the large one it was made of, uint8 [C, h, w] and [C, scale * h, scale * w]."""

    name: str
    low: Tensor
    high: Tensor


def cropped_to_multiple(image: Tensor, scale: int) -> Tensor:
    """The image [..., H, W] without its last rows and columns, down to multiples of `scale`.

    Raises InputError for an image smaller than `scale`.

    >>> cropped_to_multiple(torch.zeros(3, 10, 8), 3).shape
    torch.Size([3, 9, 6])
    """
    height, width = (side - side % scale for side in image.shape[-2:])
    if not height or not width:
        raise InputError(
            f"an image of {image.shape[-2]}x{image.shape[-1]} pixels is too small for a scale of {scale}"
        )
    return image[..., :height, :width]


def luminance_pairs(images: Iterable[tuple[str, Tensor]], downscaling: Downscaling) -> Iterator[Pair]:
    """A pair of luminances for each (name, uint8 [3 or 1, H, W]), as super-resolution is evaluated.

    Luminance (`luminance`: grey images as they are) of the whole image, cropped to a multiple of the scale
    (said in the log), made small by `downscaling` (`Bicubic(3)`), all in bytes. Raises InputError, with the
    image's name, for one that is too small or no bytes.

    >>> from compressor.data.images import Bicubic
    >>> [pair] = luminance_pairs([("a", torch.zeros(3, 10, 8, dtype=torch.uint8))], Bicubic(2))
    >>> pair.low.shape, pair.high.shape
    (torch.Size([1, 5, 4]), torch.Size([1, 10, 8]))
    """
    scale = downscaling.scale
    for name, image in images:
        if image.dtype != torch.uint8:
            raise InputError(f"image {name}: expected uint8 [C, H, W], got {image.dtype} {list(image.shape)}")
        try:
            whole = luminance(image)
            high = cropped_to_multiple(whole, scale)
            low = downscaling(high)
        except InputError as error:
            raise InputError(f"image {name}: {error}") from error
        if high.shape != whole.shape:
            sizes = [f"{one.shape[-2]}x{one.shape[-1]}" for one in (whole, high)]
            log.info("image %s: cropped from %s to %s, multiples of %d", name, *sizes, scale)
        yield Pair(name, low, high)
