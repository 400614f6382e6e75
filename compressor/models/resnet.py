"""ResNet-50 for ImageNet: bottleneck blocks with projection shortcuts.

Source: He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, table 1. A
block's stride is in its 3x3 convolution, not in the first 1x1 as in the paper: torchvision has it so, whose
parameter names these are, and so has the network that pruning papers count as 4.1 GMACs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.registry import model

__all__ = ["ResNet"]

EXPANSION = 4  # a block writes four times as many channels as its 3x3 convolution has


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with BatchNorm, and a shortcut around them (figure 5, right).

    >>> import torch
    >>> Bottleneck(64, 32, stride=2)(torch.ones(2, 64, 8, 8)).shape
    torch.Size([2, 128, 4, 4])
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.relu(self.bn3(self.conv3(out)) + shortcut)
        return activated


class ResNet(nn.Module):
    """The residual network with so many bottleneck `blocks` in its four stages; logits [N, n_classes].

    `width` is the number of channels of the stem and of the first stage's 3x3 convolutions. Raises InputError
    where `blocks` are not four whole numbers.

    >>> net = ResNet((1, 1, 1, 1), n_classes=5, width=8)
    >>> net.fc
    Linear(in_features=256, out_features=5, bias=True)
    """

    def __init__(
        self, blocks: Sequence[int], *, n_classes: int = 1000, in_channels: int = 3, width: int = 64
    ) -> None:
        super().__init__()
        require_positive("ResNet", n_classes=n_classes, in_channels=in_channels, width=width)
        if len(blocks) != 4:
            raise InputError(f"ResNet: blocks must be four numbers, one for each stage, got {tuple(blocks)}")
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, blocks[0], stride=1)
        self.layer2 = _stage(EXPANSION * width, 2 * width, blocks[1], stride=2)
        self.layer3 = _stage(2 * EXPANSION * width, 4 * width, blocks[2], stride=2)
        self.layer4 = _stage(4 * EXPANSION * width, 8 * width, blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * EXPANSION * width, n_classes)
        self.apply(_initialise_)

    def forward(self, x: Tensor) -> Tensor:
        out = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.fc(self.avgpool(out).flatten(1))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    require_positive("ResNet", blocks=blocks)
    first = Bottleneck(in_channels, channels, stride=stride)
    others = (Bottleneck(EXPANSION * channels, channels, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


def _initialise_(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


model("resnet50")(partial(ResNet, (3, 4, 6, 3)))
