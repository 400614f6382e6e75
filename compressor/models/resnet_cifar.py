"""Residual networks for 32x32 images: ResNet-20, 32, 44, 56 and 110.

Source: He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385,
section 4.2: a 3x3 convolution, then three stages of n two-layer blocks with w, 2w and 4w filters
(w = 16) on maps of 32, 16 and 8 pixels, global average pooling and one linear layer; 6n + 2 layers.

Parameter names are those of the published checkpoints that `load_akamaster_checkpoint` reads.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.registry import model

__all__ = ["BasicBlock", "ResNetCifar", "ZeroPadShortcut"]

Shortcut = Literal["A", "B"]


class ZeroPadShortcut(nn.Module):
    """The shortcut of option A: every `stride`-th pixel, with zero channels in front and behind.

    The paper only says "extra zero entries"; half in front and half behind is what the published
    checkpoints were trained with.

    The sizes are plain attributes that `forward` reads, so that they can follow a pruned network.

    >>> import torch
    >>> ZeroPadShortcut(in_channels=16, out_channels=32, stride=2)(torch.ones(1, 16, 8, 8)).shape
    torch.Size([1, 32, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.pad_front = (out_channels - in_channels) // 2
        self.pad_back = out_channels - in_channels - self.pad_front

    def forward(self, x: Tensor) -> Tensor:
        subsampled = x[:, :, :: self.stride, :: self.stride]
        return F.pad(subsampled, (0, 0, 0, 0, self.pad_front, self.pad_back))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, pad_front={self.pad_front}, pad_back={self.pad_back}"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a shortcut around them (figure 2 of the paper).

    >>> import torch
    >>> block = BasicBlock(16, 32, stride=2, shortcut="A")
    >>> block(torch.ones(1, 16, 8, 8)).shape
    torch.Size([1, 32, 4, 4])
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = (
                ZeroPadShortcut(in_channels, channels, stride)
                if shortcut == "A"
                else nn.Sequential(
                    nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                    nn.BatchNorm2d(channels),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNetCifar(nn.Module):
    """The residual network of `depth` layers; images [N, in_channels, H, W], logits [N, n_classes].

    `shortcut` is the paper's option for growing numbers of channels: "A" pads with zeros (what the
    paper uses on CIFAR), "B" is a 1x1 convolution with BatchNorm. Raises InputError for depths
    other than 6n + 2.

    >>> net = ResNetCifar(20, shortcut="B")
    >>> sum(p.numel() for p in net.parameters())
    272474
    """

    def __init__(
        self,
        depth: int,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        shortcut: Shortcut = "A",
    ) -> None:
        super().__init__()
        require_positive(
            "ResNetCifar", depth=depth, n_classes=n_classes, in_channels=in_channels, width=width
        )
        if depth < 8 or depth % 6 != 2:
            raise InputError(f"ResNetCifar: depth must be 6n + 2 (8, 14, 20, ...), got {depth}")
        if shortcut not in ("A", "B"):
            raise InputError(f"ResNetCifar: shortcut must be 'A' or 'B', got {shortcut!r}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1, shortcut=shortcut)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2, shortcut=shortcut)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2, shortcut=shortcut)
        self.linear = nn.Linear(4 * width, n_classes)
        self.apply(_initialise_)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride=stride, shortcut=shortcut)
    others = (BasicBlock(channels, channels, stride=1, shortcut=shortcut) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


def _initialise_(module: nn.Module) -> None:
    """He initialisation, as the paper and the trainer of the published checkpoints have it."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)


for _depth in (20, 32, 44, 56, 110):
    model(f"resnet{_depth}_cifar")(partial(ResNetCifar, _depth))
