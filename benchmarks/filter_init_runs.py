"""One run of each experiment on initial filters: its network, what starts it, and how far it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from benchmarks import cifar, zoo
from compressor import design
from compressor.data import load_cifar10_npz, normalize
from compressor.design import Initialiser
from compressor.filters import FilterBank, Moments
from compressor.training import Recipe, fine_tune_

__all__ = [
    "DEEP",
    "FIRST",
    "FROZEN",
    "IMAGES",
    "REDRAWN",
    "SECOND",
    "Images",
    "deep",
    "first_layer",
    "images",
    "redraw",
]

IMAGES = Path("data/cifar10/cifar10_jpegq75_10k2k.npz")
_BATCH = 50
_DEPTH = 24


@dataclass(frozen=True, eq=False)
class Images:
    """Normalised training and test images with labels."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    unlabelled: list[Tensor]
    """Batches of training images that filters are learnt from."""

    def some(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """So many training images, drawn by the seed."""
        chosen = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(seed))[:count]
        return self.x[chosen], self.y[chosen]


def images(shared: Path, *, test: int, unlabelled: int) -> Images:
    """CIFAR-10 from the shared folder; raises Missing where it is not there."""
    if not (shared / IMAGES).is_file():
        raise zoo.Missing(f"the shared folder lacks {IMAGES}")
    split = load_cifar10_npz(shared / IMAGES)
    parts = split.train, split.test
    (x, y), (x_test, y_test) = ((normalize(part.images), part.labels) for part in parts)
    return Images(x, y, x_test[:test], y_test[:test], list(x[:unlabelled].split(250)))


# -- the first layer, few labels ----------------------------------------------------------------------

# How the first layer starts; the others, and all of the baseline's, are He's of the same seed.
FIRST: Mapping[str, Callable[[list[Tensor]], Initialiser]] = {
    "He": lambda batches: design.He(),
    "orthogonal": lambda batches: design.Orthogonal(),
    "Gabor": lambda batches: design.Gabor(channels=design.cosines),
    "DCT": lambda batches: design.DCT(),
    "PCA": lambda batches: design.PCA(batches),
    "ZCA": lambda batches: design.ZCA(batches),
    "k-means": lambda batches: design.KMeans(batches),
    "conv k-means": lambda batches: design.ConvKMeans(batches),
}
# The 3 x 3 kernels of a trained ResNet-20, in the second layer.
SECOND: Mapping[str, Callable[[tuple[FilterBank, ...]], Initialiser]] = {
    "reference, sampled": lambda banks: design.SampledKernels(banks),
    "reference, Gaussian": lambda banks: design.GaussianKernels(_moments(banks)),
}
FROZEN = ", frozen"


def _moments(banks: tuple[FilterBank, ...]) -> Moments:
    return Moments.of(design.unit_kernels(banks)[3, 3])


def small_net() -> nn.Sequential:
    """Two convolutions and a matrix, 1.1 M multiply-accumulates for an image of 32 x 32."""
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.Conv2d(24, 48, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU()),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48 * 16, 10)),
    )


def first_layer(
    data: Images, arm: str, labels: int, seed: int, recipe: Recipe, banks: tuple[FilterBank, ...]
) -> dict[str, Any]:
    """Accuracy on the test images after training on so many labels."""
    net = small_net()
    design.initialise_(net, design.He(), seed=seed)
    name = arm.removesuffix(FROZEN)
    if name in FIRST:
        design.initialise_(net, FIRST[name](data.unlabelled), filters=["0"], seed=seed + 100)
    else:
        design.initialise_(net, SECOND[name](banks), filters=["3"], seed=seed + 100)
    x, y = data.some(labels, seed)
    trained, x_test = net, data.x_test
    if arm.endswith(FROZEN):  # what the layer writes never changes, so it is computed once
        with torch.no_grad():
            x, x_test = net[0](x), net[0](x_test)
        trained = net[1:]
    history = fine_tune_(trained, _Shuffled(x, y, seed), F.cross_entropy, recipe, progress=False)
    return {"accuracy": _accuracy(trained, x_test, data.y_test), "losses": list(history.losses)}


class _Shuffled:
    """Batches in an order of their own for each epoch."""

    def __init__(self, x: Tensor, y: Tensor, seed: int) -> None:
        self.x, self.y = x, y
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.y) // _BATCH)

    def __iter__(self):  # type: ignore[no-untyped-def]
        for chosen in torch.randperm(len(self.y), generator=self.generator).split(_BATCH):
            yield self.x[chosen], self.y[chosen]


@torch.no_grad()
def _accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    net.eval()
    named = torch.cat([net(part).argmax(1) for part in x.split(250)])
    return float((named == y).double().mean())


# -- a deep network without norms or shortcuts ---------------------------------------------------------


class _Fixed(Initialiser):
    """Normal weights of deviation 0.01, as before Glorot."""

    def draw(self, part: design.Part, generator: torch.Generator) -> Tensor:
        return torch.empty_like(part.filters).normal_(0, 0.01, generator=generator)[part.chosen]


DEEP: Mapping[str, Callable[[list[Tensor]], Initialiser]] = {
    "deviation 0.01": lambda batches: _Fixed(),
    "Glorot": lambda batches: design.Glorot(),
    "He": lambda batches: design.He(),
    "orthogonal, gain 1": lambda batches: design.Orthogonal(1.0),
    "orthogonal, gain √2": lambda batches: design.Orthogonal(),
    "LSUV": lambda batches: design.LSUV(batches),
}


def plain_net() -> nn.Sequential:
    """24 convolutions with ReLU and a matrix."""
    layers: list[nn.Module] = [nn.Conv2d(3, 12, 5, stride=4, padding=2), nn.ReLU()]
    for _ in range(_DEPTH - 1):
        layers += [nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12 * 16, 10))


def deep(data: Images, arm: str, labels: int, seed: int, recipe: Recipe) -> dict[str, Any]:
    """Loss of every epoch and accuracy; `spread` is the deviation of the logits before the training."""
    net = plain_net()
    design.initialise_(net, DEEP[arm](data.unlabelled[:4]), seed=seed)
    x, y = data.some(labels, seed)
    with torch.no_grad():
        spread = float(net(x[:250]).std())
    try:
        history = fine_tune_(net, _Shuffled(x, y, seed), F.cross_entropy, recipe, progress=False)
    except cp.errors.TrainingError as error:
        return {"spread": spread, "failure": f"{type(error).__name__}: {error}"}
    accuracy = _accuracy(net, data.x_test, data.y_test)
    return {"spread": spread, "accuracy": accuracy, "losses": list(history.losses)}


# -- degenerate filters after a pruning ----------------------------------------------------------------

REDRAWN: Mapping[str, Initialiser | None] = {
    "left as they are": None,
    "He": design.He(),
    "residual orthogonal": design.ResidualOrthogonal(),
    "as many healthy ones, He": design.He(),
}


def redraw(model: nn.Module, data: cifar.Data, arm: str, seed: int, recipe: Recipe) -> dict[str, Any]:
    """Accuracy before and after fine-tuning a network of which random channels, half of the MACs, are cut."""
    x = data.x_test[:1]
    scorer = cp.scoring.Random(seed)
    small = cp.prune(model, x, budget=cp.budget.Macs(0.5), scorer=scorer, check=False)
    banks = cp.filters.banks(small, x, fold_batch_norm=True)
    flags = {bank.name: design.degenerate(bank) for bank in banks}
    count = sum(int(own.sum()) for own in flags.values())
    if arm.startswith("as many"):
        flags = {name: _others(own, seed) for name, own in flags.items()}
    how = REDRAWN[arm]
    if how is not None:
        design.reinitialise_(small, x, where=flags, how=how, seed=seed)
    cut = sum(cifar.correct(small, data)) / len(data.y_test)
    history = fine_tune_(small, cifar.Augmented(data, seed), F.cross_entropy, recipe, progress=False)
    after = cp.filters.banks(small, x, fold_batch_norm=True)
    return {
        "degenerate": count,
        "degenerate_after": sum(int(design.degenerate(bank).sum()) for bank in after),
        "cut": cut,
        "accuracy": sum(cifar.correct(small, data)) / len(data.y_test),
        "losses": list(history.losses),
    }


def _others(flags: Tensor, seed: int) -> Tensor:
    """As many filters of the layer that are not flagged, at random."""
    healthy = (~flags).nonzero()[:, 0]
    order = torch.randperm(len(healthy), generator=torch.Generator().manual_seed(seed))
    others = torch.zeros_like(flags)
    others[healthy[order[: int(flags.sum())]]] = True
    return others
