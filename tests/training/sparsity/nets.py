"""Small networks for sparse training, with graphs and plans, and one training step of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import compressor as cp

__all__ = ["Apart", "NormedNet", "Planned", "planned", "train_step"]


class NormedNet(nn.Module):
    """A residual stream, a depthwise convolution and a concatenation, each writer with a BatchNorm."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.inner = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.BatchNorm2d(2 * width))
        self.depth = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width), nn.BatchNorm2d(2 * width)
        )
        self.outer = nn.Sequential(nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.last = nn.Sequential(nn.Conv2d(3 * width, width, 3, bias=False), nn.BatchNorm2d(width))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        inner = torch.relu(self.depth(torch.relu(self.inner(x))))
        x = torch.relu(x + self.outer(inner))
        x = torch.relu(self.last(torch.cat([x, inner], 1)))
        return self.head(x.mean((2, 3)))


class Apart(nn.Module):
    """What one convolution writes is read through a norm and beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.b, self.c = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(torch.relu(self.norm(x))) + self.c(x)


class Planned:
    """A network with its graph and a plan for a random part of every group."""

    def __init__(self, net: nn.Module, x: Tensor, *, ratio: float = 0.4, seed: int = 0) -> None:
        self.net, self.x = net, x
        self.graph = cp.capture(net, x)
        random = np.random.default_rng(seed)
        self.removed = np.zeros(self.graph.n_units, dtype=bool)
        for group in self.graph.groups:
            count = max(1, int(ratio * group.size))
            for cell in group.cells:
                self.removed[random.choice(cell, count, replace=False)] = True
        self.plan = self.graph.plan(self.removed)


def planned(**options: float) -> Planned:
    return Planned(NormedNet(), torch.rand(4, 3, 8, 8), **options)


def train_step(
    net: nn.Module, optimizer: Optimizer, x: Tensor, *, step: Callable[[], object] | None = None
) -> None:
    """One step of some classification of `x`; `step` in place of `optimizer.step`."""
    net.train()
    optimizer.zero_grad()
    F.cross_entropy(net(x), torch.arange(len(x)) % 4).backward()
    (optimizer.step if step is None else step)()
