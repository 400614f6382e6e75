"""Models whose memory is known, in a module that another process imports quickly."""

from __future__ import annotations

import os
import signal

import torch
from torch import Tensor, nn


class Wasteful(nn.Module):
    """Holds `weights` bytes, and `activations` bytes while it runs."""

    def __init__(self, weights: int, activations: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(weights // 4))
        self.activations = activations

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[0] + torch.ones(self.activations // 4).sum()


class Deadly(nn.Module):
    """Ends its process as the system does when memory runs out."""

    def forward(self, x: Tensor) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return x


class Reshaped(nn.Module):
    """A width written into forward, which a plan has to patch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 64, 3, padding=1), nn.Linear(64 * 64 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).view(len(x), 64, 64 * 64).reshape(-1, 64 * 64 * 64))
