"""Training patches: squares of the small images with the squares of the large ones that they come from.

Source: Shi et al. 2016, arXiv 1609.05158, section 3.2: patches of 17 x 17 small pixels, and the stride that
`patch_stride` gives.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.data.images.pairs import Pair
from compressor.errors import InputError

__all__ = ["Patches", "patch_stride", "patches"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Patches:
    """Squares of small and large images, uint8 [N, C, p, p] and [N, C, scale * p, scale * p].

    `too_small` names the images that hold none.
    """

    low: Tensor
    high: Tensor
    too_small: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.low)

    def __repr__(self) -> str:
        sizes = [f"{one.shape[-2]}x{one.shape[-1]}" for one in (self.low, self.high)]
        left = f", {len(self.too_small)} images too small" if self.too_small else ""
        return f"Patches({len(self)} of {sizes[0]} -> {sizes[1]}{left})"


def patch_stride(patch: int, kernel_sizes: Sequence[int]) -> int:
    """The stride of the paper in small pixels: the patch less one for every odd kernel.

    Source: Shi et al. 2016, section 3.2, (17 - Σ mod(f, 2)); times the scale in the large image.

    >>> patch_stride(17, (5, 3, 3))
    14
    """
    stride = patch - sum(size % 2 for size in kernel_sizes)
    if stride < 1:
        raise InputError(
            f"patch_stride: {len(kernel_sizes)} layers leave no stride in patches of {patch}; take larger"
        )
    return stride


def patches(pairs: Iterable[Pair], *, size: int = 17, stride: int = 14) -> Patches:
    """All patches of `size` small pixels, `stride` apart from the top left, image by image.

    Pairs may differ in size, not in channels or scale. Images smaller than a patch hold none: they are named
    in `too_small`, and in a warning of the log. Raises InputError where no image holds one.

    >>> pair = Pair("a", torch.zeros(1, 20, 31), torch.zeros(1, 40, 62))
    >>> patches([pair, Pair("b", torch.zeros(1, 9, 31), torch.zeros(1, 18, 62))])
    Patches(2 of 17x17 -> 34x34, 1 images too small)
    """
    if not all(isinstance(length, int) and length >= 1 for length in (size, stride)):
        raise InputError(
            f"patches: size and stride must be whole numbers of at least 1, got {size!r} and {stride!r}"
        )
    low: list[Tensor] = []
    high: list[Tensor] = []
    too_small: list[str] = []
    for pair in pairs:
        if min(pair.low.shape[-2:]) < size:
            too_small.append(pair.name)
            continue
        scale = pair.high.shape[-1] // pair.low.shape[-1]
        if not low:
            first = (pair.low.shape[0], scale)
        _check_alike(pair, *first)
        low.append(_windows(pair.low, size, stride))
        high.append(_windows(pair.high, size * scale, stride * scale))
    if too_small:
        log.warning("images smaller than a patch of %dx%d: %s", size, size, ", ".join(too_small))
    if not low:
        raise InputError(
            f"patches: none of {len(too_small)} images holds a patch of {size}x{size} small pixels; "
            f"take smaller patches or larger images"
        )
    return Patches(torch.cat(low), torch.cat(high), tuple(too_small))


def _windows(image: Tensor, size: int, stride: int) -> Tensor:
    """Windows [N, C, size, size] of an image [C, H, W]."""
    windows = image.unfold(1, size, stride).unfold(2, size, stride)
    return windows.permute(1, 2, 0, 3, 4).reshape(-1, image.shape[0], size, size)


def _check_alike(pair: Pair, channels: int, scale: int) -> None:
    _, height, width = pair.low.shape
    expected = [channels, scale * height, scale * width]
    if pair.low.shape[0] != channels or list(pair.high.shape) != expected:
        raise InputError(
            f"patches: image {pair.name} is {list(pair.low.shape)} and large {list(pair.high.shape)}, "
            f"expected {channels} channels and a scale of {scale} as the images before it"
        )
