"""CIFAR-10 from an .npz file, and the normalisation that published checkpoints expect.

Source of the images: A. Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
Nothing is downloaded: the caller names a file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.errors import FileError, InputError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Labelled", "Split", "load_cifar10_npz", "normalize"]

# Per channel (red, green, blue), of pixels scaled to 0..1. ImageNet's constants, not CIFAR's own:
# the checkpoints that `compressor.models.load_akamaster_checkpoint` reads were trained with them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ARRAYS = ("x_train", "y_train", "x_test", "y_test", "classes")


@dataclass(frozen=True, eq=False, repr=False)
class Labelled:
    """Images with their labels, in the file's order.

    `images` is uint8 [N, 3, 32, 32], `labels` int64 [N].
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Labelled({len(self)} images of {'x'.join(map(str, self.images.shape[1:]))})"


@dataclass(frozen=True, eq=False)
class Split:
    """A data set in two parts; `classes[label]` is the name of a label."""

    train: Labelled
    test: Labelled
    classes: tuple[str, ...]


def load_cifar10_npz(path: str | os.PathLike[str]) -> Split:
    """The training and test images of an .npz file with CIFAR-10 or a part of it.

    The file holds `x_train` and `x_test` (uint8 [N, 32, 32, 3], red green blue), `y_train` and
    `y_test` (integers [N]) and `classes` (strings). Raises FileError for a file that is missing,
    damaged or laid out otherwise; pickled objects in it are refused.

    >>> import tempfile
    >>> x, y = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "four.npz"
    ...     np.savez(file, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1], classes=list("abcd"))
    ...     load_cifar10_npz(file)
    Split(train=Labelled(4 images of 3x32x32), test=Labelled(1 images of 3x32x32),
          classes=('a', 'b', 'c', 'd'))
    """
    file = Path(path)
    arrays = _arrays(file)
    classes = tuple(str(name) for name in arrays["classes"])
    return Split(
        train=_labelled(file, arrays, "train", len(classes)),
        test=_labelled(file, arrays, "test", len(classes)),
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


def _arrays(file: Path) -> dict[str, npt.NDArray[np.generic]]:
    if not file.is_file():
        raise FileError(f"CIFAR-10 file {file}: no such file")
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive raises what zip, zlib or the npy header raise
        raise FileError(
            f"CIFAR-10 file {file}: cannot be read as an .npz archive of plain arrays "
            f"({type(error).__name__}: {error}); it may be truncated: fetch it again"
        ) from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise FileError(f"CIFAR-10 file {file}: lacks {', '.join(missing)}; it holds {', '.join(arrays)}")
    return arrays


def _labelled(file: Path, arrays: dict[str, npt.NDArray[np.generic]], part: str, n_classes: int) -> Labelled:
    images_NHWC, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if images_NHWC.dtype != np.uint8 or images_NHWC.shape[1:] != (32, 32, 3):
        raise FileError(
            f"CIFAR-10 file {file}: x_{part} must be uint8 [N, 32, 32, 3], "
            f"got {images_NHWC.dtype} {list(images_NHWC.shape)}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images_NHWC.shape[:1]:
        raise FileError(
            f"CIFAR-10 file {file}: y_{part} must hold {len(images_NHWC)} integers, one per image, "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise FileError(
            f"CIFAR-10 file {file}: y_{part} must lie in 0..{n_classes - 1} ({n_classes} classes), "
            f"got {labels.min()}..{labels.max()}"
        )
    images = torch.from_numpy(np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2)))
    return Labelled(images, torch.from_numpy(labels.astype(np.int64)))
