"""A new last layer for networks trained for other classes: torchvision's, timm's, those built like them."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from compressor.errors import InputError
from compressor.models.options import require_positive

__all__ = ["classifier_of", "replace_classifier_"]

Net = TypeVar("Net", bound=nn.Module)

# Where torchvision and timm keep the layers after the features.
_HEADS = ("fc", "classifier", "head", "heads", "last_linear", "linear")
# Their auxiliary classifiers (GoogLeNet, Inception) and the second head of distilled transformers.
_AUXILIARY = ("aux1", "aux2", "AuxLogits", "head_dist")


def replace_classifier_(net: Net, n_classes: int, *, at: str | None = None) -> Net:
    """`net` itself, its last classifier replaced by a fresh one of `n_classes` outputs.

    The classifier is what `classifier_of` finds, or the layer named `at`: a linear layer, or a 1x1
    convolution as in SqueezeNet. The new one has a bias where the old one had, its device and type, and
    torch's own initialisation; every other weight stays, so that the whole network can be fine-tuned.

    Raises InputError as `classifier_of` does.

    >>> from compressor.models import create
    >>> net = replace_classifier_(create("mobilenet_v2"), 4)
    >>> sum(p.numel() for p in net.parameters())
    2228996
    """
    require_positive("replace_classifier_", n_classes=n_classes)
    name = classifier_of(net, at=at)
    old = net.get_submodule(name)
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, _like(old, n_classes))
    if "num_classes" in vars(net):  # torchvision's SqueezeNet and timm's networks remember it
        net.num_classes = n_classes  # type: ignore[assignment]
    return net


def classifier_of(net: nn.Module, *, at: str | None = None) -> str:
    """The dotted name of the layer that writes the logits: the last linear layer or 1x1 convolution.

    It has to lie in a submodule named `fc`, `classifier`, `head`, `heads`, `last_linear` or `linear`. Raises
    InputError where it does not, where the network has auxiliary classifiers as well, and where `at` names
    no linear layer or 1x1 convolution.

    >>> from compressor.models import create
    >>> classifier_of(create("vgg16_bn_cifar"))
    'classifier.3'
    """
    kind = type(net).__name__
    candidates = [name for name, layer in net.named_modules() if name and _writes_logits(layer)]
    if at is not None:
        if at not in candidates:
            raise InputError(
                f"{kind}: {at!r} is no linear layer and no 1x1 convolution; the last of these are "
                f"{', '.join(candidates[-3:]) or 'none'}"
            )
        return at
    extra = [
        name
        for name, child in net.named_children()
        if name in _AUXILIARY and not isinstance(child, nn.Identity)
    ]
    if extra:
        raise InputError(
            f"{kind} has other classifiers besides its last ({', '.join(extra)}), which would keep their "
            f"classes: build it without (aux_logits=False), or set them to None and net.aux_logits to False"
        )
    last: str | None = candidates[-1] if candidates else None
    if last is None or last.split(".")[0] not in _HEADS:
        raise InputError(
            f"{kind}: expected its last layer with weights in one of {', '.join(_HEADS)}, found "
            f"{last or 'no linear layer and no 1x1 convolution'}; name the classifier with at=..."
        )
    return last


def _writes_logits(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def _like(old: nn.Module, n_classes: int) -> nn.Module:
    if isinstance(old, nn.Conv2d):
        weight, bias = old.weight, old.bias is not None
        return nn.Conv2d(old.in_channels, n_classes, 1, bias=bias, device=weight.device, dtype=weight.dtype)
    assert isinstance(old, nn.Linear)  # see _writes_logits
    weight = old.weight
    return nn.Linear(
        old.in_features, n_classes, bias=old.bias is not None, device=weight.device, dtype=weight.dtype
    )
