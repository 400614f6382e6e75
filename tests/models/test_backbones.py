from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import nn

from compressor.errors import InputError
from compressor.models import classifier_of, create, replace_classifier_

# Parameters with four classes, counted by torchvision itself.
TORCHVISION = {
    "alexnet": 57_020_228,
    "vgg16": 134_276_932,
    "vgg19": 139_586_628,
    "resnet18": 11_178_564,
    "resnet50": 23_516_228,
    "resnet101": 42_508_356,
    "densenet121": 6_957_956,
    "mobilenet_v2": 2_228_996,
    "efficientnet_b0": 4_012_672,
    "squeezenet1_1": 724_548,
    "googlenet": 5_604_004,
    "inception_v3": 21_793_764,
}
WITH_AUXILIARY = ("googlenet", "inception_v3")


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("name", "expected"), TORCHVISION.items())
def test_torchvisions_networks_have_the_parameters_of_the_table(
    torchvision_models: ModuleType, name: str, expected: int
) -> None:
    options = {"aux_logits": False, "init_weights": False} if name in WITH_AUXILIARY else {}
    with torch.device("meta"):
        net = getattr(torchvision_models, name)(weights=None, **options)
    assert count(replace_classifier_(net, 4)) == expected
    pixels = 299 if name == "inception_v3" else 224
    assert net.eval()(torch.zeros(2, 3, pixels, pixels, device="meta")).shape == (2, 4)


@pytest.mark.parametrize("name", WITH_AUXILIARY)
def test_auxiliary_classifiers_are_refused(torchvision_models: ModuleType, name: str) -> None:
    with torch.device("meta"):
        net = getattr(torchvision_models, name)(weights=None, init_weights=False)
    with pytest.raises(InputError, match="aux_logits=False"):
        replace_classifier_(net, 4)


# Our own: (name, options, classifier, parameters of 1000 classes, inputs of the classifier).
@pytest.mark.parametrize(
    ("name", "classifier", "whole", "features"),
    [
        ("resnet50", "fc", 25_557_032, 2048),
        ("mobilenet_v2", "classifier.1", 3_504_872, 1280),
        ("vgg16_bn", "classifier.6", 138_365_992, 4096),
    ],
)
def test_our_networks_lose_the_classes_of_imagenet(
    name: str, classifier: str, whole: int, features: int
) -> None:
    with torch.device("meta"):
        net = create(name)
    assert classifier_of(net) == classifier
    assert count(replace_classifier_(net, 4)) == whole - (features + 1) * (1000 - 4)


def test_every_other_weight_stays_and_can_be_trained() -> None:
    net = create("resnet50", width=8)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert replace_classifier_(net, 3) is net
    after = net.state_dict()
    assert after.keys() == before.keys() and after["fc.weight"].shape == (3, 256)
    for name, tensor in before.items():
        assert name.startswith("fc.") or torch.equal(tensor, after[name])
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


class Squeeze(nn.Module):
    """The end of a SqueezeNet: classes are channels of a convolution, averaged at last."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 10
        self.features = nn.Conv2d(3, 6, 3)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(6, 10, 1, bias=False), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classifier(self.features(x)).mean((2, 3))
        return scores


def test_a_classifier_may_be_a_convolution() -> None:
    net = replace_classifier_(Squeeze().double(), 4)
    assert isinstance(net.classifier[1], nn.Conv2d) and net.classifier[1].bias is None
    assert net.classifier[1].weight.dtype == torch.float64 and net.num_classes == 4
    assert net(torch.randn(2, 3, 8, 8, dtype=torch.float64)).shape == (2, 4)


def test_a_head_of_another_name_has_to_be_named() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 10))
    with pytest.raises(InputError, match=r"found 3; name the classifier with at="):
        replace_classifier_(net, 4)
    assert replace_classifier_(net, 4, at="3")(torch.zeros(2, 12)).shape == (2, 4)
    with pytest.raises(InputError, match=r"'2' is no linear layer .* the last of these are 1, 3"):
        replace_classifier_(net, 4, at="2")


def test_a_network_without_a_classifier() -> None:
    with pytest.raises(InputError, match="no linear layer and no 1x1 convolution"):
        replace_classifier_(nn.Sequential(nn.Conv2d(1, 2, 3)), 4)
    with pytest.raises(InputError, match="n_classes must be an integer of at least 1"):
        replace_classifier_(create("resnet20_cifar"), 0)
