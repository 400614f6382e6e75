"""Arrays of an .npz file, and images with labels made of them; faults name the file and the array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.data.labelled import Labelled
from compressor.errors import FileError
from compressor.unpacking import refuse_bomb

__all__ = ["Archive", "Array", "open_archive"]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Archive:
    """The arrays of one file; `name` is how its faults begin, such as "CIFAR-10 file a.npz"."""

    name: str
    arrays: Mapping[str, Array]

    def labelled(self, images: str, labels: str, size: tuple[int, int, int], n_classes: int) -> Labelled:
        """The images [N, C, H, W] and labels [N] of two arrays; `size` is (H, W, C), as stored.

        Images of one channel may be stored without that axis, labels as a column [N, 1].
        """
        stored = self.arrays[images]
        if size[-1] == 1 and stored.ndim == 3:
            stored = stored[..., None]
        if stored.dtype != np.uint8 or stored.shape[1:] != size:
            expected = ", ".join(map(str, ("N", *size)))
            raise FileError(
                f"{self.name}: {images} must be uint8 [{expected}], "
                f"got {stored.dtype} {list(self.arrays[images].shape)}"
            )
        pixels = torch.from_numpy(np.ascontiguousarray(stored.transpose(0, 3, 1, 2)))
        return Labelled(pixels, self._labels(labels, len(stored), n_classes))

    def numbers(self, name: str, count: int) -> Tensor:
        """The integers of an array, int64 [count], one for each image."""
        numbers = self.arrays[name]
        if numbers.ndim == 2 and numbers.shape[1] == 1:
            numbers = numbers[:, 0]
        if numbers.dtype.kind not in "iu" or numbers.shape != (count,):
            raise FileError(
                f"{self.name}: {name} must hold {count} integers, one per image, "
                f"got {numbers.dtype} {list(self.arrays[name].shape)}"
            )
        return torch.from_numpy(numbers.astype(np.int64))

    def _labels(self, name: str, count: int, n_classes: int) -> Tensor:
        labels = self.numbers(name, count)
        if count and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
            raise FileError(
                f"{self.name}: {name} must lie in 0..{n_classes - 1} ({n_classes} classes), "
                f"got {int(labels.min())}..{int(labels.max())}"
            )
        return labels


def open_archive(file: Path, kind: str, names: Sequence[str]) -> Archive:
    """The arrays of a file, `names` among them; raises FileError, pickled objects are refused."""
    where = f"{kind} file {file}"
    if not file.is_file():
        raise FileError(f"{where}: no such file")
    refuse_bomb(file)
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive raises what zip, zlib or the npy header raise
        raise FileError(
            f"{where}: cannot be read as an .npz archive of plain arrays "
            f"({type(error).__name__}: {error}); it may be truncated: fetch it again"
        ) from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise FileError(f"{where}: lacks {', '.join(missing)}; it holds {', '.join(arrays)}")
    return Archive(where, arrays)
