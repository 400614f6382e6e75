"""Images with their labels: the values that every loader of this package returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Labelled", "Partition", "Split"]


@dataclass(frozen=True, eq=False, repr=False)
class Labelled:
    """Images with their labels, in the file's order.

    `images` is uint8 [N, C, H, W], `labels` int64 [N]. `subjects`, int64 [N], numbers what was
    photographed where the file says so: images of one subject must not be on two sides of a split.
    """

    images: Tensor
    labels: Tensor
    subjects: Tensor | None = None

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


@dataclass(frozen=True, eq=False)
class Partition:
    """A data set in three parts: to train on, to choose with, to report on."""

    train: Labelled
    val: Labelled
    test: Labelled
    classes: tuple[str, ...]
