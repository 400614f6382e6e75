"""Patches turned and mirrored at random, and read batch by batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compressor.data.images.patches import Patches
from compressor.errors import InputError

__all__ = ["Augmented", "symmetries"]


def symmetries(images: Tensor, which: Tensor) -> Tensor:
    """Square images [N, C, s, s], each under one of the eight symmetries of a square, `which` [N] in 0..7.

    The bits of the number are: mirrored left to right, mirrored top to bottom, rows and columns exchanged;
    in this order. Raises InputError for images that are not square.

    >>> symmetries(torch.arange(4).view(1, 1, 2, 2), torch.tensor([5])).flatten().tolist()
    [1, 3, 0, 2]
    """
    if images.ndim != 4 or images.shape[-1] != images.shape[-2] or which.shape != images.shape[:1]:
        raise InputError(
            f"symmetries: expected square images [N, C, s, s] and a number for each, "
            f"got {list(images.shape)} and {list(which.shape)}"
        )
    if which.numel() and not 0 <= int(which.min()) <= int(which.max()) <= 7:
        raise InputError(f"symmetries: numbers must lie in 0..7, got {int(which.min())}..{int(which.max())}")
    chosen = [(which >> bit & 1).bool().to(images.device).view(-1, 1, 1, 1) for bit in range(3)]
    images = torch.where(chosen[0], images.flip(-1), images)
    images = torch.where(chosen[1], images.flip(-2), images)
    return torch.where(chosen[2], images.transpose(-1, -2), images)


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of patches as floats in 0..1, each under a random symmetry (of torch's random state).

    `batches` reads whole batches at once, which costs a small network less than its own steps do.

    >>> data = Augmented(Patches(torch.zeros(5, 1, 4, 4).byte(), torch.zeros(5, 1, 8, 8).byte()))
    >>> [low.shape[0] for low, high in data.batches(2)]
    [2, 2]
    """

    def __init__(self, patches: Patches, *, symmetric: bool = True) -> None:
        self._patches, self._symmetric = patches, symmetric

    def __len__(self) -> int:
        return len(self._patches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        low, high = self.__getitems__([index])
        return low[0], high[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch, as torch's DataLoader asks for it."""
        picked = torch.tensor(indices)
        low, high = self._patches.low[picked], self._patches.high[picked]
        if self._symmetric:
            which = torch.randint(8, (len(indices),))
            low, high = symmetries(low, which), symmetries(high, which)
        return low.float() / 255, high.float() / 255

    def batches(self, size: int, *, seed: int = 0, workers: int = 0) -> DataLoader[tuple[Tensor, Tensor]]:
        """A loader of shuffled batches (low [size, C, p, p], high); an incomplete last one is left out.

        Raises InputError where there is no whole batch.
        """
        if not 1 <= size <= len(self):
            raise InputError(f"Augmented: {len(self)} patches make no batch of {size!r}")
        return DataLoader(
            self,
            size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            collate_fn=_itself,
            generator=torch.Generator().manual_seed(seed),
        )


def _itself(batch: Any) -> Any:
    return batch
