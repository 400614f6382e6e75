"""Pretrained residual networks, their data, and one way of training and testing for all methods."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo import Missing
from compressor import models, recovery, training
from compressor.data import Labelled, load_cifar10_npz, normalize
from compressor.training import ModelLoss, Recipe
from compressor.training.attaching import Loss

__all__ = ["Augmented", "Data", "correct", "fine_tune_", "load", "recalibrate_"]

CHECKPOINTS = {
    "resnet20_cifar": Path("data/ckpt_cifar10_resnet/resnet20-12fca82f.th"),
    "resnet56_cifar": Path("data/ckpt_cifar10_resnet/resnet56-4bfd9763.th"),
}
IMAGES = Path("data/cifar10/cifar10_lossless_4k1k.npz")
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Data:
    """Normalised images and labels, the first `n` of each part of the file."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor

    def batches(self, n: int) -> list[tuple[Tensor, Tensor]]:
        """The first `n` training examples in batches, as scorers and recalibration take them."""
        return list(zip(self.x_train[:n].split(_BATCH), self.y_train[:n].split(_BATCH), strict=True))

    def held_out(self, n: int) -> Data:
        """The same training images without the last `n`, which are what is tested on."""
        return Data(self.x_train[:-n], self.y_train[:-n], self.x_train[-n:], self.y_train[-n:])


def load(
    shared: Path | None, *, train: int, test: int, name: str = "resnet56_cifar"
) -> tuple[nn.Module, Data]:
    """The network in eval mode, and the data; raises Missing where the files are not there."""
    if shared is None:
        raise Missing("no shared data: name the folder with --shared or COMPRESSOR_SHARED")
    for file in (CHECKPOINTS[name], IMAGES):
        if not (shared / file).is_file():
            raise Missing(f"the shared folder lacks {file}")
    net = models.create(name)
    net.load_state_dict(models.load_akamaster_checkpoint(shared / CHECKPOINTS[name]))
    split = load_cifar10_npz(shared / IMAGES)

    def first(part: Labelled, n: int) -> tuple[Tensor, Tensor]:
        if n > len(part):
            raise SystemExit(f"{n} images were asked for, the file has {len(part)}")
        return normalize(part.images[:n]), part.labels[:n]

    return net.eval(), Data(*first(split.train, train), *first(split.test, test))


def correct(model: nn.Module, data: Data) -> list[bool]:
    """For every test image whether the network names its class."""
    model.eval()
    with torch.no_grad():
        named = torch.cat([model(x).argmax(dim=1) for x in data.x_test.split(250)])
    return (named == data.y_test).tolist()


def recalibrate_(model: nn.Module, data: Data, *, examples: int) -> None:
    """Measure the statistics of every BatchNorm anew on training images."""
    recovery.reestimate_batch_norm_(model, data.batches(examples))
    model.eval()


def fine_tune_(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    rate: float,
    seed: int,
    loss: Loss | ModelLoss = F.cross_entropy,
) -> None:
    """Train with the library's usual SGD (Nesterov 0.9, weight decay 1e-4, cosine); crops and flips.

    Order, crops and flips come from `seed` alone, so every method sees the same images.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's types lack it
    recipe = Recipe(epochs=epochs, lr=rate, seed=seed)
    training.fine_tune_(model, Augmented(data, seed), loss, recipe, progress=False)
    model.eval()


class Augmented:
    """The training batches, in each epoch cropped, flipped and in an order anew; from `seed` alone."""

    def __init__(self, data: Data, seed: int) -> None:
        self._data = data
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return math.ceil(len(self._data.y_train) / _BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return _augmented(self._data, 1, self._generator)


def _augmented(data: Data, epochs: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    # Zero is the mean colour here; the published trainer pads before it normalises, with black.
    padded = F.pad(data.x_train, (4, 4, 4, 4))
    for _ in range(epochs):
        for chosen in torch.randperm(len(data.y_train), generator=generator).split(_BATCH):
            corners = torch.randint(0, 9, (len(chosen), 2), generator=generator).tolist()
            flips = torch.rand(len(chosen), generator=generator) < 0.5
            images = [
                padded[i, :, a : a + 32, b : b + 32]
                for i, (a, b) in zip(chosen.tolist(), corners, strict=True)
            ]
            x = torch.stack(images)
            x[flips] = x[flips].flip(-1)
            yield x, data.y_train[chosen]
