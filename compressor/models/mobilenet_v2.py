"""MobileNetV2, for ImageNet and for CIFAR: inverted residuals with linear bottlenecks.

Sources: Sandler, Howard, Zhu, Zhmoginov, Chen 2018, "MobileNetV2", arXiv 1801.04381, table 2; the
parameter names are torchvision's. The strides for 32x32 images are those of
github.com/kuangliu/pytorch-cifar, models/mobilenetv2.py: the first convolution and the 24-channel
stage keep the resolution, so that 4x4 pixels are left at the end. The blocks stay the paper's: no
convolution on a shortcut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.registry import model

__all__ = ["InvertedResidual", "MobileNetV2", "mobilenet_v2", "mobilenet_v2_cifar"]


@dataclass(frozen=True)
class Stage:
    """One row of the paper's table 2: expansion t, output channels c, repeats n, first stride s."""

    expansion: int
    channels: int
    repeats: int
    stride: int


# The first row is the plain convolution at the start, where t and n have no meaning.
STAGES = (
    Stage(1, 32, 1, 2),
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
HEAD_CHANNELS = 1280

CIFAR_STAGES = (
    replace(STAGES[0], stride=1),
    STAGES[1],
    replace(STAGES[2], stride=1),
    *STAGES[3:],
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution, 1x1 projection without activation (figure 4d).

    The input is added to the output where their shapes agree.

    >>> import torch
    >>> InvertedResidual(24, 32, stride=2, expansion=6)(torch.ones(2, 24, 8, 8)).shape
    torch.Size([2, 32, 4, 4])
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        expand = [_conv_bn_relu6(in_channels, inner, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv_bn_relu6(inner, inner, 3, stride=stride, groups=inner),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.is_residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.is_residual else out


class MobileNetV2(nn.Module):
    """A network of `stages`, a 1x1 head and one linear layer on the average over the pixels.

    `width_multiplier` scales the channels of every stage, rounded to multiples of 8. The head grows
    with it but never shrinks below 1280 channels (the paper's "trade-off hyper parameters").

    >>> import torch
    >>> net = MobileNetV2(CIFAR_STAGES, n_classes=10, width_multiplier=0.5)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        *,
        n_classes: int,
        in_channels: int = 3,
        width_multiplier: float = 1.0,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        require_positive("MobileNetV2", n_classes=n_classes, in_channels=in_channels)
        if not width_multiplier > 0:
            raise InputError(f"MobileNetV2: width_multiplier must be > 0, got {width_multiplier!r}")
        head_channels = _multiple_of_8(HEAD_CHANNELS * max(1.0, width_multiplier))
        self.features = nn.Sequential(*_features(stages, in_channels, width_multiplier, head_channels))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head_channels, n_classes))
        self.apply(_initialise_)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.features(x)
        logits: Tensor = self.classifier(maps.mean(dim=(2, 3)))
        return logits


@model("mobilenet_v2")
def mobilenet_v2(
    *,
    n_classes: int = 1000,
    in_channels: int = 3,
    width_multiplier: float = 1.0,
    dropout: float = 0.2,
) -> MobileNetV2:
    """MobileNetV2 for images of about 224x224 pixels.

    >>> sum(p.numel() for p in mobilenet_v2().parameters())
    3504872
    """
    return MobileNetV2(
        STAGES,
        n_classes=n_classes,
        in_channels=in_channels,
        width_multiplier=width_multiplier,
        dropout=dropout,
    )


@model("mobilenet_v2_cifar")
def mobilenet_v2_cifar(
    *,
    n_classes: int = 10,
    in_channels: int = 3,
    width_multiplier: float = 1.0,
    dropout: float = 0.2,
) -> MobileNetV2:
    """MobileNetV2 for 32x32 images: the same layers with two strides fewer.

    >>> sum(p.numel() for p in mobilenet_v2_cifar().parameters())
    2236682
    """
    return MobileNetV2(
        CIFAR_STAGES,
        n_classes=n_classes,
        in_channels=in_channels,
        width_multiplier=width_multiplier,
        dropout=dropout,
    )


def _features(
    stages: tuple[Stage, ...], in_channels: int, width_multiplier: float, head_channels: int
) -> Iterator[nn.Module]:
    stem, *others = stages
    channels = _multiple_of_8(stem.channels * width_multiplier)
    yield _conv_bn_relu6(in_channels, channels, 3, stride=stem.stride)
    for stage in others:
        width = _multiple_of_8(stage.channels * width_multiplier)
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            yield InvertedResidual(channels, width, stride=stride, expansion=stage.expansion)
            channels = width
    yield _conv_bn_relu6(channels, head_channels, 1)


def _conv_bn_relu6(
    in_channels: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
    )


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, but at least 8 and never more than 10 % below `channels`.

    Source: `_make_divisible` of the authors' TensorFlow code.

    >>> [_multiple_of_8(c) for c in (3, 12, 16 * 0.75, 24 * 0.35, 11.9)]
    [8, 16, 16, 8, 16]
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _initialise_(module: nn.Module) -> None:
    """He initialisation of the convolutions, small normal weights for the linear layer."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
