"""PneumoniaMNIST from an .npz file: chest X-rays at 28x28, normal or pneumonia.

Source: J. Yang, R. Shi, D. Wei, Z. Liu, L. Zhao, B. Ke, H. Pfister, B. Ni 2023, "MedMNIST v2", Scientific
Data 10, 41; images of D. Kermany et al. 2018, "Identifying Medical Diagnoses and Treatable Diseases by
Image-Based Deep Learning", Cell 172 (both CC BY 4.0). Nothing is downloaded: the caller names a file.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from compressor.data.archive import open_archive
from compressor.data.labelled import Labelled, Partition
from compressor.errors import InputError

__all__ = ["load_pneumoniamnist_npz"]

PARTS = ("train", "val", "test")
ARRAYS = tuple(f"{part}_{kind}" for part in PARTS for kind in ("images", "labels"))
CLASSES = ("normal", "pneumonia")
SIZE = (28, 28, 1)


def load_pneumoniamnist_npz(path: str | os.PathLike[str], *, normals: int | None = None) -> Partition:
    """The images of an .npz file in MedMNIST's form, uint8 [N, 1, 28, 28]; 0 normal, 1 pneumonia.

    The file holds `train_images` (uint8 [N, 28, 28]), `train_labels` (integers [N, 1] or [N]) and
    the like for `val` and `test`. `normals` keeps only the first so many normal images of the
    training part: 388 of the 1,214 leave one for nine with pneumonia. Raises FileError for a file
    that is missing, damaged or laid out otherwise, InputError for more normals than there are.

    >>> import tempfile
    >>> import numpy as np
    >>> x, y = np.zeros((5, 28, 28), np.uint8), np.array([[0], [0], [1], [1], [0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "five.npz"
    ...     np.savez(file, **{name: x if "images" in name else y for name in ARRAYS})
    ...     load_pneumoniamnist_npz(file, normals=1).train
    Labelled(3 images of 1x28x28)
    """
    archive = open_archive(Path(path), "PneumoniaMNIST", ARRAYS)
    train, val, test = (
        archive.labelled(f"{part}_images", f"{part}_labels", SIZE, len(CLASSES)) for part in PARTS
    )
    return Partition(train if normals is None else _with_normals(train, normals), val, test, CLASSES)


def _with_normals(images: Labelled, count: int) -> Labelled:
    """The images without the normal ones beyond the first `count`."""
    normal = images.labels == 0
    there = int(normal.sum())
    if not 1 <= count <= there:
        raise InputError(
            f"load_pneumoniamnist_npz: normals must be between 1 and the {there} normal images of the "
            f"training part, got {count}"
        )
    kept = torch.where(normal, normal.cumsum(0) <= count, True)
    return Labelled(images.images[kept], images.labels[kept])
