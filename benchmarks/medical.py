"""Imbalanced medical sets, the network that learns them, and one way of training for all methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo import ROOT, Missing
from compressor import models
from compressor.data import Labelled, Partition, load_ham10000_npz, load_pneumoniamnist_npz, normalize
from compressor.training import Recipe, Regularizer, fine_tune_

__all__ = ["SETS", "WHOLE", "Drawn", "Medical", "baseline", "load", "network", "recipe_of", "train_"]

SETS: dict[str, tuple[Path, Callable[[Path], Partition]]] = {
    "HAM10000": (
        Path("data/ham10000_28/ham10000_28.npz"),
        lambda file: _more_validation(load_ham10000_npz(file)),
    ),
    "PneumoniaMNIST-1:9": (
        Path("data/pneumoniamnist/pneumoniamnist.npz"),
        lambda file: load_pneumoniamnist_npz(file, normals=388),
    ),
}
# With the shares of the classes that they come with; `imbalanced` leaves them out.
WHOLE: dict[str, tuple[Path, Callable[[Path], Partition]]] = {
    "PneumoniaMNIST": (Path("data/pneumoniamnist/pneumoniamnist.npz"), load_pneumoniamnist_npz),
}
_SHIFT = 3  # pixels
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Medical:
    """Normalised images [N, C, 28, 28], channels last, and labels of the three parts."""

    name: str
    classes: tuple[str, ...]
    flips: bool
    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def example(self) -> Tensor:
        """One image, as a batch."""
        return self.train[0][:1]

    def batches(self, part: str, n: int | None = None, size: int = 128) -> list[tuple[Tensor, Tensor]]:
        """The first `n` examples of a part in their own order, as scorers and evaluation take them."""
        images, labels = {"train": self.train, "val": self.val, "test": self.test}[part]
        return list(zip(images[:n].split(size), labels[:n].split(size), strict=True))


def load(name: str, shared: Path | None, *, limit: int | None = None) -> Medical:
    """One of `SETS` or `WHOLE`, of each part the first `limit` images; raises Missing without its file."""
    if shared is None:
        raise Missing("no shared data: name the folder with --shared or COMPRESSOR_SHARED")
    path, read = {**SETS, **WHOLE}[name]
    if not (shared / path).is_file():
        raise Missing(f"the shared folder lacks {path}")
    parts = read(shared / path)
    pixels = parts.train.images.double() / 255
    mean, std = pixels.mean(dim=(0, 2, 3)).tolist(), pixels.std(dim=(0, 2, 3)).tolist()

    def tensors(part: Labelled) -> tuple[Tensor, Tensor]:
        images = normalize(part.images[:limit], mean=mean, std=std)
        return images.to(memory_format=torch.channels_last), part.labels[:limit]

    return Medical(
        name,
        parts.classes,
        flips=name == "HAM10000",  # a lesion has no upright, a chest has
        train=tensors(parts.train),
        val=tensors(parts.val),
        test=tensors(parts.test),
    )


def network(data: Medical, *, width: int, seed: int) -> nn.Module:
    """A ResNet-20 of the set's channels and classes, freshly drawn from `seed`."""
    torch.manual_seed(seed)
    net = models.create(
        "resnet20_cifar",
        n_classes=len(data.classes),
        in_channels=data.example.shape[1],
        width=width,
        shortcut="B",
    )
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's types lack it
    return net


def baseline(data: Medical, recipe: Recipe, *, width: int, seed: int, tag: str) -> nn.Module:
    """The trained network of a seed; it is kept under out/ and read from there the next time."""
    net = network(data, width=width, seed=seed)
    kept = f"{data.name.replace(':', '-')}-{tag}w{width}-e{recipe.epochs}-r{recipe.lr:g}-s{seed}"
    file = ROOT / "out" / "imbalanced" / f"{kept}.safetensors"
    if file.is_file():
        net.load_state_dict(load_file(file))
        return net.eval()
    train_(net, data, recipe, seed=seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, part)
    part.replace(file)
    return net


def recipe_of(epochs: int, rate: float) -> Recipe:
    """What all methods are trained by: up to `rate` in 15 % of the steps and down along a cosine."""
    return Recipe(epochs=epochs, lr=rate, weight_decay=5e-4, warmup_epochs=0.15 * epochs)


def train_(
    model: nn.Module, data: Medical, recipe: Recipe, *, seed: int, regularizer: Regularizer | None = None
) -> None:
    """Train in place on what is `Drawn` from the seed; the model is in eval mode at the end."""
    batches = Drawn(data, seed=seed)
    fine_tune_(model, batches, F.cross_entropy, recipe, regularizer=regularizer, progress=False)
    model.eval()


class Drawn:
    """Training batches in which every class is as likely, with shifts and flips.

    With a `balance` below 1 frequent classes are drawn more often, with 0 every image is as likely.
    A pass draws as many images as there are. Order, shifts and flips come from `seed` alone, so every
    method sees the same images; every pass goes on where the one before it ended, also from a checkpoint,
    which holds the state of `generator`.
    """

    def __init__(self, data: Medical, *, seed: int, balance: float = 1.0) -> None:
        images, self._labels = data.train
        self._height, self._width = images.shape[2:]
        padded = F.pad(images, (_SHIFT,) * 4, mode="replicate")
        self._padded_NHWC = padded.permute(0, 2, 3, 1).contiguous()
        self._likely = self._labels.bincount()[self._labels].double() ** -balance
        self._flips = data.flips
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / _BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n = len(self._labels)
        order = torch.multinomial(self._likely, n, replacement=True, generator=self.generator)
        return ((self._seen(chosen), self._labels[chosen]) for chosen in order.split(_BATCH))

    def _seen(self, chosen: Tensor) -> Tensor:
        """The images, each moved by up to three pixels and turned over or not."""
        shifts = torch.randint(0, 2 * _SHIFT + 1, (len(chosen), 2), generator=self.generator)
        rows = torch.arange(self._height) + shifts[:, :1]
        columns = torch.arange(self._width) + shifts[:, 1:]
        if self._flips:
            flipped = torch.rand(len(chosen), 2, generator=self.generator) < 0.5
            rows = torch.where(flipped[:, :1], rows.flip(1), rows)
            columns = torch.where(flipped[:, 1:], columns.flip(1), columns)
        x_NHWC = self._padded_NHWC[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        return x_NHWC.permute(0, 3, 1, 2)


def _more_validation(parts: Partition) -> Partition:
    """The same test part, and a fifth of all other lesions for validation.

    The file's own validation part has two images of dermatofibroma: nothing can be chosen on it.
    """
    images = torch.cat([parts.train.images, parts.val.images])
    labels = torch.cat([parts.train.labels, parts.val.labels])
    assert parts.train.subjects is not None and parts.val.subjects is not None
    subjects = torch.cat([parts.train.subjects, parts.val.subjects])
    lesions = subjects.unique()
    order = torch.randperm(len(lesions), generator=torch.Generator().manual_seed(0))
    held = torch.isin(subjects, lesions[order[: len(lesions) // 5]])
    train, val = (Labelled(images[own], labels[own], subjects[own]) for own in (~held, held))
    return Partition(train, val, parts.test, parts.classes)
