"""The networks that are measured: torchvision's convolutional classifiers, without weights."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

__all__ = [
    "FAMILIES",
    "Missing",
    "add_shared_option",
    "build",
    "example",
    "heads",
    "networks",
    "outputs",
    "shared_folder",
    "torchvision",
]

ROOT = Path(__file__).resolve().parent.parent
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


class Missing(Exception):
    """Something a benchmark needs is not on this machine; the text says what."""


def add_shared_option(parser: argparse.ArgumentParser) -> None:
    """Add `--shared`, the folder with data, checkpoints and torchvision's stand-in operators."""
    parser.add_argument(
        "--shared",
        default=os.environ.get("COMPRESSOR_SHARED"),
        help="folder of shared data (default: $COMPRESSOR_SHARED, else ../shared)",
    )


def shared_folder(named: str | None) -> Path | None:
    """The shared folder, or None where the default one is absent; a named one must exist."""
    folder = Path(named) if named else ROOT.parent / "shared"
    if folder.is_dir():
        return folder
    if named:
        raise SystemExit(f"the shared data folder {folder} does not exist")
    return None


def torchvision(shared: str | None) -> ModuleType:
    """The module torchvision.models; raises Missing where torchvision cannot be imported.

    torchvision has no build for every CPU-only torch. Where the shared folder holds declarations of
    its compiled operators, they are loaded first: no classifier runs any of them.
    """
    folder = shared_folder(shared)
    if folder is not None:
        file = folder / "zoo" / "torchvision_on_cpu_torch.py"
        if file.is_file():
            _run_once("torchvision_on_cpu_torch", file)
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:
        raise Missing(
            f"torchvision cannot be imported ({type(error).__name__}: {error}); install it, or "
            "name a folder with zoo/torchvision_on_cpu_torch.py by --shared"
        ) from error


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


def outputs(result: Any) -> list[Tensor]:
    """All tensors of what a network returned."""
    leaves: Iterable[Any] = _pytree.tree_leaves(result)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _run_once(name: str, file: Path) -> None:
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
