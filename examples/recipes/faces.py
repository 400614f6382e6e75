"""Faces to restore, photographed or drawn, and the features that restorations are judged by."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from session import Session
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from compressor.data import load_orl_faces_npz
from compressor.data.images import resize
from compressor.training import Mapped, Recipe, fine_tune_

__all__ = ["Faces", "augmented", "drawn", "enlarged", "feature_network", "orl"]

MARGIN = 2  # pixels by which faces are moved in training


@dataclass(frozen=True, eq=False)
class Faces:
    """Training faces with a margin [N, 1, S + 2m, S + 2m], people [N]; test faces of others [M, 1, S, S]."""

    train: Tensor
    people: Tensor
    test: Tensor

    def batches(
        self, run: Session, options: argparse.Namespace, *, count: int, seed: int
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        """`count` batches of (faces, people) over all processes, every face as often as any other."""
        if options.batch % run.world:
            sys.exit(f"--batch {options.batch} does not divide among {run.world} processes")
        data = _Repeated(self, options.batch * count)
        sampler = DistributedSampler(data, run.world, run.rank, seed=seed)
        own = options.batch // run.world
        return DataLoader(data, own, sampler=sampler, drop_last=True, num_workers=options.workers)


class _Repeated(Dataset[tuple[Tensor, Tensor]]):
    """The training faces again and again, up to a number."""

    def __init__(self, faces: Faces, length: int) -> None:
        self.faces, self.length = faces, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        at = index % len(self.faces.train)
        return self.faces.train[at], self.faces.people[at]


def augmented(x: Tensor, people: Tensor) -> tuple[Tensor, Tensor]:
    """Faces moved by up to MARGIN pixels and mirrored half of the time; the border is gone."""
    side = x.shape[-1] - 2 * MARGIN
    places = torch.randint(2 * MARGIN + 1, (len(x), 2)).tolist()
    flips = torch.randint(2, (len(x),)).tolist()
    parts = [
        face[:, top : top + side, left : left + side] for face, (top, left) in zip(x, places, strict=True)
    ]
    turned = [part.flip(2) if flip else part for part, flip in zip(parts, flips, strict=True)]
    return torch.stack(turned), people


def orl(path: Path, *, side: int, held_out: int = 10) -> Faces:
    """The middle 92x92 pixels of the ORL faces at a smaller size; the last people are held out."""
    faces = load_orl_faces_npz(path)
    square = faces.images[:, :, 10:102].float() / 255
    wide = resize(square, (side + 2 * MARGIN,) * 2).clamp(0, 1)
    return _split(wide, faces.labels, held_out)


def drawn(*, side: int, people: int = 6, held_out: int = 2, seed: int = 0) -> Faces:
    """Ellipses with eyes: to try the recipe, not to learn from."""
    generator = torch.Generator().manual_seed(seed)
    size = side + 2 * MARGIN
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    images, labels = [], []
    for person in range(people):
        tall, wide, apart = (0.5 + 0.3 * torch.rand(3, generator=generator)).tolist()
        for _ in range(10):
            dx, dy, light = (0.1 * torch.randn(3, generator=generator)).tolist()
            face = 0.5 + light + 0.3 * (((x - dx) / wide) ** 2 + ((y - dy) / tall) ** 2 < 1)
            eyes = (((x - dx).abs() - apart / 2) ** 2 + (y - dy + 0.15) ** 2) < 0.01
            images.append((face - 0.5 * eyes).clamp(0, 1)[None])
            labels.append(person)
    return _split(torch.stack(images), torch.tensor(labels), held_out)


def feature_network(run: Session, faces: Faces, options: argparse.Namespace) -> nn.Module:
    """A network of 32 features: what a small classifier of the training people sees in clean faces."""
    seed = options.seed
    torch.manual_seed(seed)
    widths = (1, 16, 32, 64)
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU()]
    side = -(-faces.test.shape[-1] // 8)
    features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * side**2, 32), nn.ReLU())
    classifier = nn.Sequential(features, nn.Linear(32, int(faces.people.max()) + 1)).to(run.device)
    epochs = 5
    count = max(1, options.steps // 2 // epochs)
    batches = Mapped(faces.batches(run, options, count=count, seed=seed), augmented)
    recipe = Recipe(epochs=epochs, lr=1e-3, optimizer=torch.optim.AdamW, seed=seed, autocast=run.autocast)
    history = fine_tune_(classifier, batches, cross_entropy, recipe, checkpoint=run.out / "features.pt")
    run.say(f"features:\n{history}")
    return features.eval()


def enlarged(rows: list[Tensor], times: int = 3) -> Tensor:
    """Rows of faces [n, 1, H, W] below each other as one image, uint8 [1, H', W']."""
    image = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    big = interpolate(image[None], scale_factor=times, mode="nearest-exact")[0]
    return (big.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def _split(wide: Tensor, people: Tensor, held_out: int) -> Faces:
    known = people < int(people.max()) + 1 - held_out
    return Faces(wide[known], people[known], wide[~known][:, :, MARGIN:-MARGIN, MARGIN:-MARGIN])
