"""torchvision's networks, without weights: classifiers by family, the rest one of each kind."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.entry import BATCH, Entry, Inputs

__all__ = ["FAMILIES", "N_CLASSES", "build", "entries", "example", "heads", "networks"]

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
ATTENTION = {
    "ViT": (r"vit_.*", "vit_b_32"),
    "Swin": (r"swin_[tsb]", "swin_t"),
    "Swin v2": (r"swin_v2_[tsb]", "swin_v2_t"),
    "MaxViT": (r"maxvit_t", "maxvit_t"),
}
# Where what a network is given is no image [3, 64, 64]; without a height, a length of video.
SEGMENTATION = (
    "fcn_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)
VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s")
DETECTION = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
_QUICK = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "r3d_18", "fcos_resnet50_fpn")

# Inception's auxiliary head, which training runs, has a 5x5 convolution that needs 299 pixels.
_PIXELS = {"inception_v3": 299}


def networks(models: ModuleType, *, quick: bool) -> list[str]:
    """The names of all variants of all families, or with `quick` of one small variant each."""
    listed = models.list_models(module=models)
    if quick:
        return [small for _, small in FAMILIES.values()]
    patterns = [re.compile(pattern) for pattern, _ in FAMILIES.values()]
    return [name for p in patterns for name in listed if p.fullmatch(name)]


def entries(models: ModuleType, *, quick: bool) -> list[Entry]:
    """Every network, or with `quick` a small one of each family."""
    found = []
    listed = models.list_models(module=models)
    for family, (pattern, small) in {**FAMILIES, **ATTENTION}.items():
        names = [small] if quick else [name for name in listed if re.fullmatch(pattern, name)]
        found += [Entry("torchvision", family, name, _classifier(models, name)) for name in names]
    kinds: tuple[tuple[str, Sequence[str], Callable[[ModuleType, str], Builder]], ...] = (
        ("segmentation", SEGMENTATION, _segmentation),
        ("video", VIDEO, _video),
        ("detection", DETECTION, _detector),
    )
    for family, variants, builder in kinds:
        found += [
            Entry("torchvision", family, name, builder(models, name))
            for name in variants
            if not quick or name in _QUICK
        ]
    return found


Builder = Callable[[int], tuple[nn.Module, Inputs]]


def _classifier(models: ModuleType, name: str) -> Builder:
    def build_it(seed: int) -> tuple[nn.Module, Inputs]:
        torch.manual_seed(seed)
        options: dict[str, Any] = {"image_size": 64} if name.startswith("vit_") and "h_14" not in name else {}
        if name == "vit_h_14":
            options = {"image_size": 56}
        elif name == "maxvit_t":
            options = {"input_size": (64, 64), "partition_size": 2}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            if name == "maxvit_t":  # get_model passes an input size of its own
                model = models.MaxVit(
                    stem_channels=64, block_channels=[64, 128, 256, 512], block_layers=[2, 2, 5, 2],
                    head_dim=32, stochastic_depth_prob=0.2, **options,
                )  # fmt: skip
            else:
                model = models.get_model(name, weights=None, **options)
        side = options.get("image_size", 64)
        x = torch.randn(BATCH, 3, side, side) if options else example(name, batch=BATCH, seed=seed)
        return model.eval(), Inputs((x,))

    return build_it


def _segmentation(models: ModuleType, name: str) -> Builder:
    def build_it(seed: int) -> tuple[nn.Module, Inputs]:
        torch.manual_seed(seed)
        auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
        model = models.get_model(name, weights=None, weights_backbone=None, **auxiliary)
        return model.eval(), Inputs((torch.randn(BATCH, 3, 64, 64),))

    return build_it


def _video(models: ModuleType, name: str) -> Builder:
    def build_it(seed: int) -> tuple[nn.Module, Inputs]:
        torch.manual_seed(seed)
        frames, side = {"s3d": (16, 224)}.get(name, (4, 64))
        with _smaller_mvit(models, frames, side):
            model = models.get_model(name, weights=None)
        return model.eval(), Inputs((torch.randn(BATCH, 3, frames, side, side),))

    return build_it


@contextmanager
def _smaller_mvit(models: ModuleType, frames: int, side: int) -> Iterator[None]:
    """Its functions fix 16 frames of 224 pixels, which takes ten seconds for a forward pass."""
    module = sys.modules[f"{models.__name__}.video.mvit"]
    whole = vars(module)["MViT"]

    def smaller(**options: Any) -> nn.Module:
        model = whole(**{**options, "temporal_size": frames, "spatial_size": (side, side)})
        assert isinstance(model, nn.Module)
        return model

    vars(module)["MViT"] = smaller
    try:
        yield
    finally:
        vars(module)["MViT"] = whole


def _detector(models: ModuleType, name: str) -> Builder:
    def build_it(seed: int) -> tuple[nn.Module, Inputs]:
        torch.manual_seed(seed)
        if "rcnn" in name:
            options = {
                "min_size": 64, "max_size": 96, "box_detections_per_img": 4, "box_score_thresh": 0.0,
                "rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 8,
            }  # fmt: skip
        elif "ssd" in name:
            options = {"topk_candidates": 20, "detections_per_img": 10, "score_thresh": 0.0}
        else:
            options = {"min_size": 64, "max_size": 96, "detections_per_img": 10, "topk_candidates": 20,
                       "score_thresh": 0.0}  # fmt: skip
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=4, **options)
        return model.eval(), Inputs(([torch.rand(3, 64, 64) for _ in range(BATCH)],))

    return build_it


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
