"""A keyword spotter: depthwise convolutions, squeeze and excitation, a GRU, shapes in the forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Excite(nn.Module):
    """Scales every channel by what all of them say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))


class Block(nn.Module):
    """A depthwise and a pointwise convolution with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.inner = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.outer = nn.BatchNorm2d(channels)
        self.excite = Excite(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.inner(self.depthwise(x)))
        return torch.relu(x + self.excite(self.outer(self.pointwise(y))))


class Spotter(nn.Module):
    """Names one of eight words in a spectrogram [N, 1, 40 bands, 64 frames]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 5, stride=4, padding=2), nn.ReLU())
        self.blocks = nn.Sequential(Block(32), Block(32))
        self.over_time = nn.GRU(32 * 10, 48, batch_first=True)
        self.head = nn.Linear(48, 8)

    def forward(self, spectrogram: Tensor) -> Tensor:
        maps = self.blocks(self.stem(spectrogram))
        n, channels, bands, frames = maps.shape
        steps, _ = self.over_time(maps.permute(0, 3, 1, 2).reshape(n, frames, channels * bands))
        return self.head(steps[:, -1])


def words(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Stand-ins for recordings: a rising or falling tone, with or without a trill, in noise."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(8, (n,), generator=draw)
    band, frame = torch.arange(40.0)[:, None], torch.arange(64.0)
    start = 12 + 8 * torch.rand(n, 1, 1, generator=draw)
    slope, trill = (label % 4 - 1.5)[:, None, None] * 0.2, (label // 4)[:, None, None] * 5
    tone = start + slope * frame + trill * torch.sin(frame / 4)
    noise = 0.7 * torch.randn(n, 40, 64, generator=draw)
    return (torch.exp(-((band - tone) ** 2) / 6) + noise)[:, None], label
