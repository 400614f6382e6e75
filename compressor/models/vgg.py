"""VGG-16 with BatchNorm, for CIFAR and for ImageNet: thirteen 3x3 convolutions in five stages.

Sources: Simonyan, Zisserman 2014, "Very Deep Convolutional Networks", arXiv 1409.1556, table 1,
column D; with BatchNorm after every convolution, as torchvision's `vgg16_bn` has it, whose
parameter names these are. For CIFAR: Li, Kadav, Durdanovic, Samet, Graf 2017, "Pruning Filters for
Efficient ConvNets", arXiv 1608.08710, section 4.1 and table 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor, nn

from compressor.models.options import require_positive
from compressor.models.registry import model

__all__ = ["VGG", "vgg16_bn", "vgg16_bn_cifar"]

# Filters of the convolutions, stage by stage; a 2x2 max pooling ends each stage.
VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Convolution stages, pooling to `pooled`x`pooled` pixels, a classifier on what they leave.

    >>> import torch
    >>> net = VGG(nn.Linear(512, 10), in_channels=1, pooled=1)
    >>> net(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classifier: nn.Module, *, in_channels: int, pooled: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*_features(in_channels))
        self.avgpool = nn.AdaptiveAvgPool2d(pooled)
        self.classifier = classifier
        self.apply(_initialise_)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.avgpool(self.features(x))
        logits: Tensor = self.classifier(maps.flatten(1))
        return logits


@model("vgg16_bn_cifar")
def vgg16_bn_cifar(*, n_classes: int = 10, in_channels: int = 3) -> VGG:
    """VGG-16 for 32x32 images with two small linear layers, BatchNorm on the first, no dropout.

    Source: Li et al. 2017 (see the top of this file).

    >>> sum(p.numel() for p in vgg16_bn_cifar().parameters())
    14991946
    """
    require_positive("vgg16_bn_cifar", n_classes=n_classes, in_channels=in_channels)
    classifier = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, n_classes))
    return VGG(classifier, in_channels=in_channels, pooled=1)


@model("vgg16_bn")
def vgg16_bn(*, n_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> VGG:
    """VGG-16 for images of 224x224 pixels with the paper's three linear layers.

    Source: Simonyan, Zisserman 2014 (see the top of this file).

    >>> import torch
    >>> with torch.device("meta"):  # 553 MB of weights, not needed to count them
    ...     net = vgg16_bn()
    >>> sum(p.numel() for p in net.parameters())
    138365992
    """
    require_positive("vgg16_bn", n_classes=n_classes, in_channels=in_channels)
    classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(4096, n_classes),
    )
    return VGG(classifier, in_channels=in_channels, pooled=7)


def _features(in_channels: int) -> Iterator[nn.Module]:
    for stage in VGG16_STAGES:
        for channels_in, channels_out in pairwise((in_channels, *stage)):
            yield nn.Conv2d(channels_in, channels_out, 3, padding=1)
            yield nn.BatchNorm2d(channels_out)
            yield nn.ReLU()
        yield nn.MaxPool2d(2)
        in_channels = stage[-1]


def _initialise_(module: nn.Module) -> None:
    """He initialisation of the convolutions, small normal weights for the linear layers."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
