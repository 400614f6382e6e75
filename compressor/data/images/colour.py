"""Luminance and colour differences of BT.601 in the studio range, as MATLAB's rgb2ycbcr has them.

Y = 16 + (65.481 R + 128.553 G + 24.966 B) and likewise Cb, Cr for R, G, B in 0..1, so Y lies in 16..235.
Bytes are rounded after each way, as MATLAB rounds uint8; floats are in 0..1 and stay exact.

Source: ITU-R BT.601-7, section 2.5; the constants are those of the super-resolution literature's evaluation
code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["luminance", "rgb_to_ycbcr", "ycbcr_to_rgb"]

# Levels (0..255) for red, green, blue in 0..1; rows Y, Cb, Cr.
_MATRIX = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_OFFSET = (16.0, 128.0, 128.0)


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """Y, Cb, Cr [..., 3, H, W] of red, green, blue: uint8 to uint8 (rounded), or floats 0..1 to floats 0..1.

    >>> rgb_to_ycbcr(torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)).flatten()
    tensor([ 81,  90, 240], dtype=torch.uint8)
    """
    levels = _levels("rgb_to_ycbcr", rgb, 3)
    matrix, offset = _constants(levels)
    return _like(torch.einsum("oc,...chw->...ohw", matrix / 255, levels) + offset, rgb)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """Red, green, blue [..., 3, H, W] of Y, Cb, Cr, the inverse of `rgb_to_ycbcr`; clipped to 0..255 or 0..1.

    >>> ycbcr_to_rgb(torch.tensor([81, 90, 240], dtype=torch.uint8).view(3, 1, 1)).flatten()
    tensor([254,   0,   0], dtype=torch.uint8)
    """
    levels = _levels("ycbcr_to_rgb", ycbcr, 3)
    matrix, offset = _constants(levels)
    inverse = (255 * torch.linalg.inv(matrix.double().cpu())).to(levels)
    return _like(torch.einsum("oc,...chw->...ohw", inverse, levels - offset).clamp(0, 255), ycbcr)


def luminance(images: Tensor) -> Tensor:
    """The luminance [..., 1, H, W] of RGB [..., 3, H, W]; images of one channel are returned as they are.

    That a grey file is not scaled to 16..235 is the literature's protocol (Set14 has one): it is taken for
    the luminance itself.

    >>> luminance(torch.full((3, 1, 1), 255, dtype=torch.uint8)).item()
    235
    """
    if images.ndim >= 3 and images.shape[-3] == 1:
        _levels("luminance", images, 1)
        return images
    levels = _levels("luminance", images, 3)
    matrix, offset = _constants(levels)
    return _like(torch.einsum("oc,...chw->...ohw", matrix[:1] / 255, levels) + offset[:1], images)


def _levels(where: str, images: Tensor, channels: int) -> Tensor:
    """The images as floats in 0..255; bytes in float64, where rounding meets no ties but real ones."""
    fits = images.ndim >= 3 and images.shape[-3] == channels
    if not fits or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise InputError(
            f"{where}: expected uint8 or floats [..., {channels}, H, W], "
            f"got {images.dtype} {list(images.shape)}"
        )
    if images.dtype == torch.uint8:
        return images.to(torch.float32 if images.device.type == "mps" else torch.float64)
    return images * 255


def _constants(levels: Tensor) -> tuple[Tensor, Tensor]:
    return levels.new_tensor(_MATRIX), levels.new_tensor(_OFFSET).view(3, 1, 1)


def _like(levels: Tensor, given: Tensor) -> Tensor:
    if given.dtype == torch.uint8:
        return (levels + 0.5).floor().clamp(0, 255).to(torch.uint8)
    return levels / 255
