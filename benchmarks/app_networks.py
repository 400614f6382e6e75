"""Classifiers and the small networks made of them: cut and proved, fitted, taught by the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from benchmarks import cifar, medical
from benchmarks.medical import Drawn, Medical
from benchmarks.zoo import ROOT
from compressor.budget import Budget, Uniform
from compressor.training import Distillation, Recipe, fine_tune_

__all__ = ["CASES", "Case", "Lengths", "case", "pruned"]

_PIXELS = 32  # five poolings leave one position of 32 pixels, none of 28
_FITTED_ON = 512  # images for the layers behind the cut


@dataclass(frozen=True)
class Lengths:
    """Epochs of both trainings, and the first images that are used of each part (None: all)."""

    training: int
    tuning: int
    images: int | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A classifier on its data: everything that is done with it is done alike.

    `original(seed)` is the unpruned network, `drawn(seed)` are the batches that its pruned one learns from,
    augmented. `images` [N, C, 32, 32] are training images as they are, `test` those that are reported on.
    """

    name: str
    classes: tuple[str, ...]
    original: Callable[[int], nn.Module]
    drawn: Callable[[int], Iterable[object]]
    images: Tensor
    test: tuple[Tensor, Tensor]
    budget: Budget
    recipe: Recipe
    tag: str

    @property
    def example(self) -> Tensor:
        """One image, as a batch."""
        return self.images[:1]


def pruned(case: Case, model: nn.Module, *, seed: int) -> nn.Module:
    """The small network in eval mode; it is kept under out/ and read from there the next time."""
    small = cp.prune(model, case.example, budget=case.budget)  # verified

    def teach(checkpoint: Path) -> None:
        if not checkpoint.exists():
            cp.recovery.reconstruct_(small, model, case.images[:_FITTED_ON].split(64))
        by_original = Distillation(model, F.cross_entropy)
        fine_tune_(small, case.drawn(seed), by_original, case.recipe, checkpoint=checkpoint, progress=False)

    _kept(small, f"{case.tag}-s{seed}-{case.budget!r}-{case.recipe!r}", teach)
    return small.eval()


# -- cases ---------------------------------------------------------------------------------------


def _vgg(name: str, budget: Budget, shared: Path | None, lengths: Lengths) -> Case:
    """VGG-16 on a medical set at 32 pixels, trained here."""
    data = medical.load(name, shared, limit=lengths.images)
    data = replace(data, train=_padded(data.train), val=_padded(data.val), test=_padded(data.test))
    tag = f"vgg16-{name}-{'' if lengths.images is None else f'first{lengths.images}-'}"
    recipe = _recipe(lengths.training, 1e-3)
    return Case(
        name=f"VGG-16, {name}",
        classes=data.classes,
        original=lambda seed: _trained_vgg(data, recipe, seed, f"{tag}{recipe!r}"),
        drawn=lambda seed: Drawn(data, seed=seed + 1000, balance=0),
        images=data.train[0],
        test=data.test,
        budget=budget,
        recipe=_recipe(lengths.tuning, 2e-3),
        tag=f"{tag}{lengths.training}",
    )


def _resnet(name: str, budget: Budget, shared: Path | None, lengths: Lengths) -> Case:
    """A published ResNet on CIFAR-10; its only seed is the checkpoint's."""
    train, test = (lengths.images or 4000, lengths.images or 1000)
    model, data = cifar.load(shared, train=train, test=test, name=name)
    return Case(
        name=f"{name.replace('_cifar', '').replace('resnet', 'ResNet-')}, CIFAR-10",
        classes=tuple(map(str, range(10))),
        original=lambda seed: model,
        drawn=partial(cifar.Augmented, data),
        images=data.x_train,
        test=(data.x_test, data.y_test),
        budget=budget,
        recipe=_recipe(lengths.tuning, 2e-3),
        tag=f"{name}-{train}",
    )


_CUT = Uniform(0.8125, round_to=4)  # the mildest that leaves a fifth of the activations of every layer
CASES: dict[str, Callable[[Path | None, Lengths], Case]] = {
    "HAM10000": partial(_vgg, "HAM10000", _CUT),
    "PneumoniaMNIST": partial(_vgg, "PneumoniaMNIST", _CUT),
    "ResNet-20": partial(_resnet, "resnet20_cifar", Uniform(0.5, round_to=8)),
    "ResNet-56": partial(_resnet, "resnet56_cifar", Uniform(0.5, round_to=8)),
}


def case(name: str, shared: Path | None, lengths: Lengths) -> Case:
    """One of `CASES`; raises Missing where its files are not there."""
    return CASES[name](shared, lengths)


def _trained_vgg(data: Medical, recipe: Recipe, seed: int, tag: str) -> nn.Module:
    torch.manual_seed(seed)
    channels = data.example.shape[1]
    net = cp.models.create("vgg16_bn_cifar", n_classes=len(data.classes), in_channels=channels)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's types lack it

    def train(checkpoint: Path) -> None:
        batches = Drawn(data, seed=seed, balance=0)
        fine_tune_(net, batches, F.cross_entropy, recipe, checkpoint=checkpoint, progress=False)

    _kept(net, f"{tag}-s{seed}", train)
    return net.eval()


def _recipe(epochs: int, rate: float) -> Recipe:
    """AdamW, up to `rate` in a tenth of the steps and down along a cosine; bfloat16 halves the time."""
    return Recipe(
        epochs=epochs,
        lr=rate,
        weight_decay=0.02,
        optimizer=torch.optim.AdamW,
        warmup_epochs=epochs / 10,
        autocast=torch.bfloat16,
    )


def _padded(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The images with their edges repeated up to 32 pixels."""
    images, labels = part
    padded = F.pad(images, ((_PIXELS - images.shape[2]) // 2,) * 4, mode="replicate")
    return padded.contiguous(memory_format=torch.channels_last), labels


# -- what is kept --------------------------------------------------------------------------------


def _kept(net: nn.Module, name: str, train: Callable[[Path], None]) -> None:
    """Fill `net` from its file, or train it, going on from a checkpoint beside, and write the file."""
    file = ROOT / "out" / "app_claim" / f"{name.replace(' ', '').replace('/', '-')}.safetensors"
    if file.is_file():
        net.load_state_dict(load_file(file))
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = file.with_suffix(".checkpoint")
    train(checkpoint)
    part = file.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, part)
    part.replace(file)
    checkpoint.unlink(missing_ok=True)
