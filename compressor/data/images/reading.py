"""One image file as a tensor of bytes, and back: every mode of Pillow is read right or refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.errors import FileError, InputError
from compressor.extras import imported

__all__ = ["read_image", "write_image"]

Colour = tuple[int, int, int]

# Pillow's modes; those of 16 bits have names of their own.
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La", *_GREY_16)
_COLOUR = ("RGB", "P", "CMYK", "YCbCr", "LAB", "HSV")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def read_image(
    path: str | os.PathLike[str], *, keep_grey: bool = False, background: Colour | None = None
) -> Tensor:
    """The image of a file, uint8 [3, H, W], red green blue; a grey one is [1, H, W] with `keep_grey`.

    - Turned upright as EXIF says.
    - Transparent pixels show `background`, (255, 255, 255) for white; without one they are refused. An alpha
      channel that is opaque everywhere is dropped.
    - 16-bit grey is scaled to 8 bits (v / 257, rounded). Colour of 16 bits arrives from Pillow as its upper
      byte, at most one level less.
    - Palettes and bilevel images are resolved; CMYK, YCbCr, Lab and HSV become RGB by Pillow's plain
      formulas. Embedded colour profiles are not applied.

    Raises FileError for a file that is missing, damaged or truncated, that holds several frames, or floats or
    32-bit integers, whose range nothing says; InputError for a `background` that is no colour.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "grey.png"
    ...     write_image(torch.full((1, 2, 3), 7, dtype=torch.uint8), file)
    ...     read_image(file).shape, read_image(file, keep_grey=True).shape
    (torch.Size([3, 2, 3]), torch.Size([1, 2, 3]))
    """
    _check_background(background)
    file = Path(path)
    if not file.is_file():
        raise FileError(f"image {file}: no such file")
    image = _opened(file)
    pixels = _pixels(image, file, background)
    if keep_grey and image.mode in _GREY and bool((pixels == pixels[:1]).all()):
        return pixels[:1]  # over a coloured background it would not be grey any more
    return pixels


def write_image(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write uint8 [3, H, W] or [1, H, W] to a file in the format of its suffix.

    Raises InputError for another tensor, FileError where the file cannot be written (a JPEG loses detail: use
    .png for what is measured later).
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise InputError(
            f"write_image: expected uint8 [3, H, W] or [1, H, W], got {image.dtype} {list(image.shape)}; "
            f"of floats in 0..1: (image.clamp(0, 1) * 255).round().to(torch.uint8)"
        )
    array = image.permute(1, 2, 0).cpu().numpy()
    picture = _pillow("Image").fromarray(
        array[..., 0] if image.shape[0] == 1 else np.ascontiguousarray(array)
    )
    try:
        picture.save(path)
    except (OSError, ValueError) as error:  # ValueError: a suffix that names no format
        raise FileError(f"cannot write the image {path}: {error}") from error


def _pillow(module: str) -> Any:
    return imported(f"PIL.{module}", extra="images", needed_for="work with image files")


def _opened(file: Path) -> Any:
    """The image with its pixels in memory, upright."""
    library, turning = _pillow("Image"), _pillow("ImageOps")

    try:
        with library.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise FileError(
                    f"image {file}: holds {frames} frames, expected one; save the one that is meant"
                )
            image.load()
            if image.mode == "I" and image.format == "PNG":  # older Pillow; a PNG has 16 bits at most
                image = image.convert("I;16")
            return turning.exif_transpose(image)
    except FileError:
        raise
    except Exception as error:  # a damaged file raises what its decoder raises
        raise FileError(
            f"image {file}: cannot be read ({type(error).__name__}: {error}); it is truncated or no image"
        ) from error


def _pixels(image: Any, file: Path, background: Colour | None) -> Tensor:
    """The pixels, uint8 [3, H, W]."""
    if image.mode in _GREY_16 and "transparency" not in image.info:
        return _grey_16(np.asarray(image)).expand(3, -1, -1).contiguous()
    if image.mode not in _GREY_16 and (image.mode in _ALPHA or "transparency" in image.info):
        return _composited(image, file, background)
    if image.mode not in ("1", "L", *_COLOUR):
        raise FileError(
            f"image {file}: pixels of mode {image.mode!r} cannot be taken for bytes: floats and 32-bit "
            f"integers have no known range, transparency among 16 bits is not read; save it with 8 bits"
        )
    return _tensor(image.convert("RGB"))


def _grey_16(values: Any) -> Tensor:
    wide = torch.from_numpy(values.astype(np.int64))
    return ((wide + 128) // 257).to(torch.uint8)[None]


def _composited(image: Any, file: Path, background: Colour | None) -> Tensor:
    """Pixels over a background; opaque ones need none."""
    pixels = _tensor(image.convert("RGBA"))
    colours, alpha = pixels[:3], pixels[3:]
    if bool((alpha == 255).all()):
        return colours
    if background is None:
        raise FileError(
            f"image {file}: {int((alpha < 255).sum())} of {alpha.numel()} pixels are transparent, so their "
            f"colour depends on what is behind; say it with background=(255, 255, 255)"
        )
    behind = torch.tensor(background)[:, None, None]
    weighted = colours.int() * alpha.int() + behind * (255 - alpha.int())
    return ((weighted + 127) // 255).to(torch.uint8)


def _tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _check_background(background: Colour | None) -> None:
    if background is None:
        return
    good = isinstance(background, tuple) and len(background) == 3
    if not good or not all(isinstance(value, int) and 0 <= value <= 255 for value in background):
        raise InputError(
            f"read_image: background must be three integers 0..255, (255, 255, 255) for white, "
            f"got {background!r}"
        )
