"""torchvision's networks, without weights: classifiers by family, the rest one of each kind."""

from __future__ import annotations

import re
import warnings
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks.zoo.entry import Entry, Inputs

__all__ = ["FAMILIES", "N_CLASSES", "build", "example", "heads", "networks"]

N_CLASSES = 1000

# Family: (pattern of its variants, the one of `--quick`).
FAMILIES = {
    "AlexNet": (r"alexnet", "alexnet"),
    "VGG": (r"vgg\d+(_bn)?", "vgg11_bn"),
    "ResNet": (r"resnet\d+", "resnet18"),
    "ResNeXt": (r"resnext.*", "resnext50_32x4d"),
    "Wide ResNet": (r"wide_resnet.*", "wide_resnet50_2"),
    "RegNet x": (r"regnet_x_.*", "regnet_x_400mf"),
    "RegNet y": (r"regnet_y_.*", "regnet_y_400mf"),
    "DenseNet": (r"densenet\d+", "densenet121"),
    "GoogLeNet": (r"googlenet", "googlenet"),
    "Inception v3": (r"inception_v3", "inception_v3"),
    "SqueezeNet": (r"squeezenet.*", "squeezenet1_1"),
    "MNASNet": (r"mnasnet.*", "mnasnet0_5"),
    "MobileNet v2": (r"mobilenet_v2", "mobilenet_v2"),
    "MobileNet v3": (r"mobilenet_v3.*", "mobilenet_v3_small"),
    "ShuffleNet v2": (r"shufflenet_v2.*", "shufflenet_v2_x0_5"),
    "EfficientNet v1": (r"efficientnet_b\d", "efficientnet_b0"),
    "EfficientNet v2": (r"efficientnet_v2_.*", "efficientnet_v2_s"),
    "ConvNeXt": (r"convnext_.*", "convnext_tiny"),
}

# Inception's auxiliary head, which training runs, has a 5x5 convolution that needs 299 pixels.
_PIXELS = {"inception_v3": 299}


def networks(models: ModuleType, *, quick: bool) -> list[str]:
    """The names of all variants of all families, or with `quick` of one small variant each."""
    listed = models.list_models(module=models)
    if quick:
        return [small for _, small in FAMILIES.values()]
    patterns = [re.compile(pattern) for pattern, _ in FAMILIES.values()]
    return [name for p in patterns for name in listed if p.fullmatch(name)]


def build(models: ModuleType, name: str, *, seed: int) -> nn.Module:
    """The network with random weights, in eval mode."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # two say that their initialisation is slow
        model = models.get_model(name, weights=None)
    assert isinstance(model, nn.Module)
    return model.eval()


def example(name: str, *, batch: int, seed: int, pixels: int = 64) -> Tensor:
    """Images of noise [batch, 3, pixels, pixels], larger where the network needs it."""
    side = _PIXELS.get(name, pixels)
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def heads(model: nn.Module) -> list[nn.Module]:
    """The layers that write the class scores, auxiliary heads included."""
    return [
        module
        for module in model.modules()
        if (isinstance(module, nn.Linear) and module.out_features == N_CLASSES)
        or (isinstance(module, nn.Conv2d) and module.out_channels == N_CLASSES)
    ]
