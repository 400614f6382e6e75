"""CIFAR-10 from an .npz file, and the normalisation that published checkpoints expect.

Source of the images: A. Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
Nothing is downloaded: the caller names a file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from compressor.data.archive import open_archive
from compressor.data.labelled import Split
from compressor.errors import InputError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "load_cifar10_npz", "normalize"]

# Per channel (red, green, blue), of pixels scaled to 0..1. ImageNet's constants, not CIFAR's own:
# the checkpoints that `compressor.models.load_akamaster_checkpoint` reads were trained with them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ARRAYS = ("x_train", "y_train", "x_test", "y_test", "classes")
SIZE = (32, 32, 3)


def load_cifar10_npz(path: str | os.PathLike[str]) -> Split:
    """The training and test images of an .npz file with CIFAR-10 or a part of it.

    The file holds `x_train` and `x_test` (uint8 [N, 32, 32, 3], red green blue), `y_train` and
    `y_test` (integers [N]) and `classes` (strings). Raises FileError for a file that is missing,
    damaged or laid out otherwise; pickled objects in it are refused.

    >>> import tempfile
    >>> import numpy as np
    >>> x, y = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "four.npz"
    ...     np.savez(file, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1], classes=list("abcd"))
    ...     load_cifar10_npz(file)
    Split(train=Labelled(4 images of 3x32x32), test=Labelled(1 images of 3x32x32),
          classes=('a', 'b', 'c', 'd'))
    """
    archive = open_archive(Path(path), "CIFAR-10", ARRAYS)
    classes = tuple(str(name) for name in archive.arrays["classes"])
    return Split(
        train=archive.labelled("x_train", "y_train", SIZE, len(classes)),
        test=archive.labelled("x_test", "y_test", SIZE, len(classes)),
        classes=classes,
    )


def normalize(
    images: Tensor,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """The float32 images (pixel/255 − mean)/std, channel by channel.

    `images` is uint8 [N, C, H, W]; `mean` and `std` have one number per channel. Raises InputError
    for another type, so that nothing is normalised twice.

    >>> normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    tensor([2.2489, 2.4286, 2.6400])
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise InputError(
            "normalize: images must be uint8 [N, C, H, W], "
            f"got {images.dtype} {list(images.shape)}; is it normalised already?"
        )
    if not len(mean) == len(std) == images.shape[1]:
        raise InputError(
            f"normalize: mean and std need one number per channel, {images.shape[1]} in all, "
            f"got {len(mean)} and {len(std)}"
        )
    mean_C11 = torch.tensor(mean, device=images.device).view(-1, 1, 1)
    std_C11 = torch.tensor(std, device=images.device).view(-1, 1, 1)
    return (images / 255 - mean_C11) / std_C11
