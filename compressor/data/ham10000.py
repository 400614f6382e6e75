"""HAM10000 at 28x28 from an .npz file: skin lesions of seven kinds, of which one has two thirds.

Source of the images: P. Tschandl, C. Rosendahl, H. Kittler 2018, "The HAM10000 dataset", Scientific
Data 5, 180161 (CC BY-NC 4.0). Nothing is downloaded: the caller names a file.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from compressor.data.archive import Archive, open_archive
from compressor.data.labelled import Labelled, Partition
from compressor.errors import FileError

__all__ = ["load_ham10000_npz"]

ARRAYS = ("x", "y", "split", "lesion", "classes")
SIZE = (28, 28, 3)
PARTS = 3


def load_ham10000_npz(path: str | os.PathLike[str]) -> Partition:
    """The images of an .npz file with HAM10000, in the three parts that the file names.

    The file holds `x` (uint8 [N, 28, 28, 3], red green blue) and, for every image, integers [N]:
    its label `y`, its part `split` (0 train, 1 validation, 2 test) and the `lesion` it shows, which
    becomes `Labelled.subjects`; `classes` are strings. Raises FileError for a file that is missing,
    damaged or laid out otherwise, also where images of one lesion are in two parts.

    >>> import tempfile
    >>> x, n = np.zeros((4, 28, 28, 3), np.uint8), np.arange(4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "four.npz"
    ...     np.savez(file, x=x, y=n % 2, split=[0, 0, 1, 2], lesion=n, classes=["mel", "nv"])
    ...     load_ham10000_npz(file)
    Partition(train=Labelled(2 images of 3x28x28), val=Labelled(1 images of 3x28x28),
              test=Labelled(1 images of 3x28x28), classes=('mel', 'nv'))
    """
    archive = open_archive(Path(path), "HAM10000", ARRAYS)
    classes = tuple(str(name) for name in archive.arrays["classes"])
    images = archive.labelled("x", "y", SIZE, len(classes))
    subjects = archive.numbers("lesion", len(images))
    part_of = archive.numbers("split", len(images))
    _check_parts(archive, part_of, subjects)
    whole = Labelled(images.images, images.labels, subjects)
    train, val, test = (_chosen(whole, part_of == part) for part in range(PARTS))
    return Partition(train, val, test, classes)


def _chosen(images: Labelled, chosen: Tensor) -> Labelled:
    assert images.subjects is not None
    return Labelled(images.images[chosen], images.labels[chosen], images.subjects[chosen])


def _check_parts(archive: Archive, part_of: Tensor, subjects: Tensor) -> None:
    if len(part_of) and not 0 <= int(part_of.min()) <= int(part_of.max()) < PARTS:
        raise FileError(
            f"{archive.name}: split must be 0 (train), 1 (validation) or 2 (test), "
            f"got {int(part_of.min())}..{int(part_of.max())}"
        )
    pairs = np.unique(np.stack([subjects.numpy(), part_of.numpy()]), axis=1)
    lesions, counts = np.unique(pairs[0], return_counts=True)
    if (counts > 1).any():
        raise FileError(
            f"{archive.name}: images of lesion {lesions[counts > 1][0]} are in several parts, expected "
            "each lesion in one: a test on them would be a test on what was trained with"
        )
