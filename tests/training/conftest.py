"""A small network with everything that has a state, and data that it can learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Jittered(Dataset[tuple[Tensor, Tensor]]):
    """Images with noise from the global generator: an augmentation."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        return image + 0.1 * torch.randn_like(image), self.labels[index]


def make_net(seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm and dropout: 3 classes of 1x6x6 images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(8 * 16, 3),
        )


def make_data(n: int = 24, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images whose mean tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randn(n, 1, 6, 6, generator=generator) + labels[:, None, None, None] * 1.5
    return images, labels


def make_loader(batch: int = 6, seed: int | None = 2, workers: int = 0) -> DataLoader[tuple[Tensor, Tensor]]:
    """A shuffling loader with augmentation, with a generator of its own or (seed None) the global one."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return DataLoader(Jittered(*make_data()), batch, shuffle=True, generator=generator, num_workers=workers)


@pytest.fixture
def net() -> nn.Sequential:
    return make_net()


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    """Four batches of six, as a list."""
    return list(DataLoader(TensorDataset(*make_data()), 6))
