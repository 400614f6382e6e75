"""ECGs for the recipe: simulated or read, as images of one second, in batches that keep their order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from session import Session
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

import compressor as cp
from compressor.data import ecg
from compressor.models import replace_classifier_
from compressor.training import balanced_sampler

__all__ = ["Network", "Seconds", "network", "prepared", "simulated"]

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers that only torchvision's own training needs


@dataclass(frozen=True)
class Network:
    """A kind of network by name: how it is built, and in which form it takes images [M, rows, T].

    `round_to` is what its widths are multiples of after a cut: 2-D kernels are slower on odd widths.
    """

    name: str
    build: Callable[[], nn.Module]
    form: Callable[[Tensor], Tensor]
    lr: float
    round_to: int

    @property
    def is_recurrent(self) -> bool:
        """Whether int8 is the dynamic one."""
        return self.name == "ecg_cnn_lstm"


def network(name: str, *, n_classes: int, rows: int, weights: Path | None = None) -> Network:
    """One of this library's networks, or one of torchvision's with the state dict in `weights`, if any."""
    if name in ("ecg_cnn1d", "ecg_cnn_lstm", "ecg_cnn2d"):
        if weights is not None:
            sys.exit("--backbone-weights are for backbones such as resnet50")
        form, round_to = (_plane, 8) if name == "ecg_cnn2d" else (_rows, 1)
        build_small = partial(cp.models.create, name, n_classes=n_classes, rows=rows)
        return Network(name, build_small, form, 3e-3, round_to)
    pixels = 299 if name.startswith("inception") else 224

    def build() -> nn.Module:
        net = _backbone(name, trained=weights is not None)
        if weights is not None:
            stored = torch.load(weights, map_location="cpu", weights_only=True)
            net.load_state_dict(
                {key: value for key, value in stored.items() if not key.startswith(AUXILIARY)}
            )
        return replace_classifier_(net, n_classes)

    return Network(name, build, partial(ecg.backbone_input, size=pixels), 3e-4, 8)


def _rows(images: Tensor) -> Tensor:
    return images


def _plane(images: Tensor) -> Tensor:
    return images[:, None]


def _backbone(name: str, *, trained: bool) -> nn.Module:
    if name in cp.models.names():
        return cp.models.create(name)
    try:
        from torchvision import models
    except ImportError as error:
        sys.exit(
            f"--model {name} is none of this library's ({', '.join(cp.models.names())}), and torchvision, "
            f"which may have it, cannot be imported ({error})"
        )
    if name not in models.list_models(module=models):
        sys.exit(f"--model {name} is neither this library's nor torchvision's")
    options = {}
    if name in ("googlenet", "inception_v3"):  # their published weights want inputs in a scale of their own
        options = {"aux_logits": False, "init_weights": not trained, "transform_input": trained}
    net: nn.Module = models.get_model(name, weights=None, **options)
    return net


def simulated(count: int, *, seed: int, seconds: float = 10.0) -> ecg.Recordings:
    """So many recordings of the four rhythms, as many of each."""
    generator = torch.Generator().manual_seed(seed)
    return ecg.simulate(torch.arange(count) % len(ecg.RHYTHMS), generator=generator, seconds=seconds)


def prepared(recordings: ecg.Recordings, *, frequencies: int, columns: int) -> ecg.StackedImages:
    """One image for each second; the baseline is found on means of five samples, which is faster."""
    cleaning = (ecg.BaselineRemoval(decimation=5),)
    how = ecg.Preparation(cleaning=cleaning, bank=ecg.MorletBank(rows=frequencies), columns=columns)
    return ecg.prepare(recordings, how)


class Seconds(Dataset[tuple[Tensor, int]]):
    """The images of `images`, all or those at `positions`, in the form that a network takes."""

    def __init__(
        self,
        images: ecg.StackedImages,
        form: Callable[[Tensor], Tensor],
        positions: Sequence[int] | Tensor | None = None,
    ) -> None:
        self._images, self._form = images, form
        self._positions = torch.arange(len(images)) if positions is None else torch.as_tensor(positions)
        self.labels: Tensor = images.labels[self._positions]
        self.records: Tensor = images.records[self._positions]
        self.classes = images.classes

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        position = int(self._positions[index])
        return self._form(self._images.images[position : position + 1])[0], int(self.labels[index])

    def first(self, count: int) -> Tensor:
        """The first images, as the network takes them."""
        return torch.stack([self[index][0] for index in range(min(count, len(self)))])

    def training(
        self, run: Session, *, batch: int, seed: int, balanced: bool, workers: int
    ) -> DataLoader[Any]:
        """Shuffled batches, or such in which every class is as frequent."""
        if batch % run.world:
            sys.exit(f"--batch {batch} does not divide among {run.world} processes")
        sampler: Sampler[int] = (
            balanced_sampler(self.labels, classes=len(self.classes), seed=seed)
            if balanced
            else DistributedSampler(self, run.world, run.rank, seed=seed)
        )
        generator = torch.Generator().manual_seed(seed + run.rank)
        return DataLoader(
            self,
            batch // run.world,
            sampler=sampler,
            num_workers=workers,
            drop_last=True,
            generator=generator,
        )

    def in_order(self, *, batch: int = 256) -> DataLoader[Any]:
        """All of them, once, in the order of `records`."""
        return DataLoader(self, batch)
