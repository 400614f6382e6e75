"""Models of random banks to be stored, the same ones for the same names."""

from __future__ import annotations

import zlib

import torch

from compressor.filters import FilterBank

__all__ = ["banks_of", "metadata_of"]

_SHAPES = ((8, 3), (8, 1), (16, 8), (1, 1))


def banks_of(
    model: str, kernel_size: tuple[int, ...] = (3, 3), dtype: torch.dtype = torch.float32
) -> list[FilterBank]:
    """Four banks, one of them depthwise and one of a single kernel."""
    generator = torch.Generator().manual_seed(zlib.crc32(model.encode()))
    return [
        FilterBank(
            torch.randn(out, into, *kernel_size, generator=generator).to(dtype),
            f"layer{i}",
            model=model,
            layer_id=i,
            conv_depth=2 * i,
            conv_depth_norm=i / 3,
            groups=8 if i == 1 else 1,
            folded=i == 2,
        )
        for i, (out, into) in enumerate(_SHAPES)
    ]


def metadata_of(model: str) -> dict[str, str | int | bool]:
    """A task, a year, and whether the model was trained on something else first."""
    number = zlib.crc32(model.encode())
    task = ("Classification", "Segmentation", "Style")[number % 3]
    return {"task": task, "year": 2015 + number % 9, "Pretraining-Dataset": bool(number % 2)}
