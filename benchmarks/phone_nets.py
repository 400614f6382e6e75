"""The networks of the phone benchmark, with an example input and calibration batches for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import cifar
from compressor import models, recovery
from compressor.budget import by_ratio, by_score

__all__ = ["NAMES", "QUICK", "Net", "network"]

SEED = 0
_BATCHES, _BATCH = 4, 16
_TESTED = 1000
# Name: the quick mode takes a smaller image.
_PIXELS = {"mobilenet_v2": (224, 96), "espcn": (96, 48), "vgg16_bn_cifar": (32, 32), "resnet50": (224, 64)}
NAMES = ("resnet20_cifar", "resnet56_cifar", "vgg16_bn_cifar", "mobilenet_v2", "espcn")
QUICK = ("resnet20_cifar", "mobilenet_v2")


@dataclass(frozen=True, eq=False)
class Net:
    """A network in eval mode, an example `x` [1, ...], unlabelled `batches` like it, and labelled images.

    `weights` says where they come from. Random ones say nothing about which channels matter, so layers are
    thinned alike (`order`), and tell nothing of accuracy; time does not depend on values.
    """

    name: str
    model: nn.Module
    x: Tensor
    batches: list[Tensor]
    weights: str
    tested: tuple[Tensor, Tensor] | None = None

    @property
    def order(self) -> Callable[..., object]:
        """The order in which a budget takes channels."""
        return by_score if self.weights == "trained" else by_ratio

    @property
    def singles(self) -> list[Tensor]:
        """The images of the batches one by one, as files with a fixed batch take them."""
        return [x for batch in self.batches for x in batch.split(1)]


def network(name: str, shared: Path | None, *, quick: bool) -> Net:
    """The network of that name; raises Missing where its checkpoint or data are not there."""
    if name in cifar.CHECKPOINTS:
        model, data = cifar.load(shared, train=_BATCHES * 64, test=_TESTED, name=name)
        batches = [images for images, _ in data.batches(_BATCHES * 64)]
        return Net(name, model, data.x_test[:1], batches, "trained", (data.x_test, data.y_test))
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    pixels = _PIXELS[name][quick]
    channels = 1 if name == "espcn" else 3
    images = [torch.randn(_BATCH, channels, pixels, pixels, generator=generator) for _ in range(_BATCHES)]
    if name == "espcn":
        return Net(
            name, models.create(name).eval(), images[0][:1].sigmoid(), [x.sigmoid() for x in images], "random"
        )
    model = models.create(name)
    # With the statistics of fresh norms activations grow or vanish from layer to layer.
    recovery.reestimate_batch_norm_(model, images)
    return Net(name, model.eval(), images[0][:1], images, "random")
