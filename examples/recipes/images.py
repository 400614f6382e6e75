"""Images for the recipes: folders (with torchvision), CIFAR-10, or small synthetic ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from session import Session
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from compressor.data import IMAGENET_MEAN, IMAGENET_STD, Labelled, load_cifar10_npz
from compressor.training import balanced_sampler

__all__ = ["Images", "cifar10", "folders", "synthetic"]

Images_ = Dataset[tuple[Tensor, int]]


@dataclass(frozen=True, eq=False)
class Images:
    """A training set with and without augmentation, its labels, a validation set, the classes' names."""

    train: Images_
    plain: Images_
    validation: Images_
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def training(
        self, run: Session, *, batch: int, workers: int, seed: int, balanced: bool = False
    ) -> DataLoader[tuple[Tensor, int]]:
        """Augmented batches of `batch` samples over all processes, shuffled, or every class equally often."""
        sampler: Sampler[int] = (
            balanced_sampler(self.labels, classes=len(self.classes), seed=seed)
            if balanced
            else DistributedSampler(self.train, run.world, run.rank, seed=seed)
        )
        return self._loader(run, self.train, batch, workers, sampler, drop_last=True)

    def scoring(self, run: Session, *, batch: int, workers: int, samples: int) -> list[Any]:
        """Batches of about `samples` training samples without augmentation, every process's own share."""
        sampler = DistributedSampler(self.plain, run.world, run.rank, seed=1, drop_last=True)
        loader = self._loader(run, self.plain, batch, workers, sampler, drop_last=True)
        return [item for item, _ in zip(loader, range(max(1, samples // batch)), strict=False)]

    def validating(self, run: Session, *, batch: int, workers: int) -> DataLoader[tuple[Tensor, int]]:
        """All validation samples, every process's own share."""
        sampler = DistributedSampler(self.validation, run.world, run.rank, shuffle=False)
        return self._loader(run, self.validation, batch, workers, sampler, drop_last=False)

    def _loader(
        self, run: Session, data: Images_, batch: int, workers: int, sampler: Any, *, drop_last: bool
    ) -> DataLoader[tuple[Tensor, int]]:
        if batch % run.world:
            sys.exit(f"--batch {batch} does not divide among {run.world} processes")
        return DataLoader(
            data,
            batch // run.world,
            sampler=sampler,
            num_workers=workers,
            pin_memory=run.device.type == "cuda",
            drop_last=drop_last,
            generator=torch.Generator().manual_seed(run.rank),
        )


class Tensors(Images_):
    """Images in memory [N, C, H, W] (uint8 or ready), normalised, with shifts and flips where asked for."""

    def __init__(self, data: Labelled | tuple[Tensor, Tensor], *, augment: bool, shift: int = 4) -> None:
        self.images, self.labels = (
            (data.images, data.labels) if isinstance(data, Labelled) else (data[0], data[1])
        )
        self.augment, self.shift = augment, shift

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if image.dtype == torch.uint8:
            mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
            image = (image / 255 - mean) / std
        if self.augment:
            image = _shifted(image, self.shift)
        return image, int(self.labels[index])


def _shifted(image: Tensor, shift: int) -> Tensor:
    """A random crop of the image with a border of zeros, flipped half of the time."""
    height, width = image.shape[1:]
    top, left, flip = (int(torch.randint(0, n, ())) for n in (2 * shift + 1, 2 * shift + 1, 2))
    padded = torch.nn.functional.pad(image, (shift,) * 4)[:, top : top + height, left : left + width]
    return padded.flip(2) if flip else padded


def synthetic(*, n: int, pixels: int, counts: tuple[int, ...]) -> Images:
    """Noise whose mean tells the class, in proportion to `counts`: to try a recipe, not to learn from."""

    def part(size: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.repeat_interleave(
            torch.arange(len(counts)), torch.tensor(counts) * size // sum(counts)
        )
        images = torch.randn(len(labels), 3, pixels, pixels, generator=generator)
        return images + labels[:, None, None, None] / len(counts), labels

    train, validation = part(n, 0), part(n // 2, 1)
    return Images(
        Tensors(train, augment=True),
        Tensors(train, augment=False),
        Tensors(validation, augment=False),
        tuple(train[1].tolist()),
        tuple(f"class {i}" for i in range(len(counts))),
    )


def cifar10(path: Path) -> Images:
    """CIFAR-10 from an .npz file (see `compressor.data`) or from torchvision's folder; neither is fetched."""
    if path.is_file():
        split = load_cifar10_npz(path)
        train, test, classes = split.train, split.test, split.classes
    else:
        datasets = _torchvision("reading CIFAR-10's own files").datasets
        parts = [datasets.CIFAR10(path, train=flag, download=False) for flag in (True, False)]
        train, test = (
            Labelled(torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets))
            for part in parts
        )
        classes = tuple(parts[0].classes)
    return Images(
        Tensors(train, augment=True),
        Tensors(train, augment=False),
        Tensors(test, augment=False),
        tuple(train.labels.tolist()),
        classes,
    )


def folders(
    path: Path, *, augmented: Callable[[ModuleType], Any], plain: Callable[[ModuleType], Any]
) -> Images:
    """`path/train/<class>/*` and `path/val/<class>/*`; transforms are made from torchvision.transforms."""
    torchvision = _torchvision("reading image folders")
    for part in ("train", "val"):
        if not (path / part).is_dir():
            sys.exit(f"{path / part} is missing: expected {path}/train/<class>/* and {path}/val/<class>/*")
    make, transforms = torchvision.datasets.ImageFolder, torchvision.transforms
    train = make(path / "train", augmented(transforms))
    validation = make(path / "val", plain(transforms))
    if train.classes != validation.classes:
        sys.exit(f"{path}: train has the classes {train.classes}, val has {validation.classes}")
    return Images(
        train, make(path / "train", plain(transforms)), validation, tuple(train.targets), tuple(train.classes)
    )


def _torchvision(what: str) -> Any:
    try:
        import torchvision
    except ImportError as error:
        sys.exit(
            f"{what} needs torchvision, which cannot be imported ({error}): pip install torchvision in the "
            f"version for torch {torch.__version__}; or try the recipe with --quick"
        )
    return torchvision
