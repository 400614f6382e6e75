"""Images for super-resolution: folders, or generated ones with the edges of natural images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from compressor.data.images import (
    Augmented,
    Bicubic,
    Downscaling,
    ImageSet,
    Pair,
    Patches,
    luminance_pairs,
    patch_stride,
    patches,
    read_folder,
)

__all__ = ["Material", "dead_leaves", "generated", "of_folders"]

KERNELS = (5, 3, 3)


@dataclass(frozen=True, eq=False)
class Material:
    """Training patches, and the test pairs of each set, made with one downscaling."""

    patches: Patches
    tests: dict[str, list[Pair]]

    def loader(self, batch: int, *, seed: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
        """Shuffled batches under random symmetries."""
        return Augmented(self.patches).batches(batch, seed=seed, workers=workers)

    def plain(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """About `count` patches spread over all of them, in batches of 64, for scores and least squares."""
        plain, step = Augmented(self.patches, symmetric=False), max(1, len(self.patches) // count)
        low, high = (
            torch.stack(part) for part in zip(*(plain[n] for n in range(0, len(plain), step)), strict=True)
        )
        return list(zip(low.split(64), high.split(64), strict=True))


def of_folders(
    train: Path,
    tests: Sequence[Path],
    downscaling: Downscaling,
    *,
    patch: int = 17,
    skip_unreadable: bool = False,
) -> Material:
    """Patches of one folder, and a test set for each of the others; grey files are luminance as they are."""
    reading = {"keep_grey": True, "skip_unreadable": skip_unreadable}
    found = {path.name: read_folder(path, **reading) for path in tests}
    return _material(read_folder(train, **reading), found, downscaling, patch)


def generated(downscaling: Downscaling, *, patch: int = 17, count: int = 6, seed: int = 0) -> Material:
    """Dead leaves instead of photographs: to try a recipe."""
    images = [(f"leaves {n}", dead_leaves(200, seed=seed + n)) for n in range(count)]
    train, test = (
        ImageSet(*(tuple(part) for part in zip(*some, strict=True))) for some in (images[:-2], images[-2:])
    )
    return _material(train, {"leaves": test}, downscaling, patch)


def dead_leaves(pixels: int, *, seed: int, count: int = 400) -> Tensor:
    """Discs of random colours that cover each other, uint8 [3, pixels, pixels]; many small ones, few large.

    Source: A. Lee, D. Mumford, J. Huang 2001, "Occlusion Models for Natural Images": radii with the density
    r^-3 give the statistics of edges at every size.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(pixels), torch.arange(pixels), indexing="ij")
    image = torch.full((3, pixels, pixels), 0.5)
    for _ in range(count):
        u, y, x, *colour = torch.rand(6, generator=generator).tolist()
        radius = 2 / (1 - u * (1 - (2 / (pixels / 2)) ** 2)) ** 0.5
        inside = (rows - y * pixels) ** 2 + (columns - x * pixels) ** 2 < radius**2
        image = torch.where(inside, torch.tensor(colour)[:, None, None], image)
    return (image * 255).to(torch.uint8)


def _material(train: ImageSet, tests: dict[str, ImageSet], downscaling: Downscaling, patch: int) -> Material:
    cut = patches(luminance_pairs(train, downscaling), size=patch, stride=patch_stride(patch, KERNELS))
    measured = Bicubic(downscaling.scale)  # whatever it is trained on: papers compare on this one
    return Material(cut, {name: list(luminance_pairs(images, measured)) for name, images in tests.items()})
