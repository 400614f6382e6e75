from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from torch import nn

from compressor.models import create, vgg16_bn, vgg16_bn_cifar


def test_the_imagenet_network_has_as_many_parameters_as_torchvisions() -> None:
    with torch.device("meta"):
        net = vgg16_bn()
    assert sum(p.numel() for p in net.parameters()) == 138_365_992


def test_the_cifar_network_is_counted_by_hand() -> None:
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in pairwise(widths))
    linears = 512 * 512 + 512 + 512 * 10 + 10
    norms = 2 * (sum(widths[1:]) + 512)
    net = vgg16_bn_cifar()
    assert sum(p.numel() for p in net.parameters()) == convolutions + linears + norms
    # Papers count without BatchNorm: 1.5e7 (Li et al. 2017, table 1), later 14.98 M.
    assert (convolutions + linears) / 1e6 == pytest.approx(14.98, abs=0.005)


def test_macs_are_those_of_the_pruning_literature(
    count_macs: Callable[[nn.Module, int], int],
) -> None:
    assert count_macs(vgg16_bn_cifar(), 32) == pytest.approx(3.13e8, rel=0.005)  # Li et al., table 1


def test_the_cifar_head_has_batchnorm_on_its_first_layer_and_no_dropout() -> None:
    net = vgg16_bn_cifar()
    kinds = [type(module).__name__ for module in net.classifier.children()]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert not any(isinstance(module, nn.Dropout) for module in net.modules())


def test_the_last_map_of_the_cifar_network_is_one_pixel() -> None:
    net = vgg16_bn_cifar().eval()
    assert net.features(torch.randn(2, 3, 32, 32)).shape == (2, 512, 1, 1)


def test_the_imagenet_network_maps_224_pixels_to_a_thousand_logits() -> None:
    with torch.device("meta"):
        net, images = vgg16_bn().eval(), torch.zeros(2, 3, 224, 224)
    assert net(images).shape == (2, 1000)
    assert net.features(images).shape == (2, 512, 7, 7)


def test_activations_are_not_clipped_from_above() -> None:
    net = vgg16_bn_cifar().eval()
    for module in net.features.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 50.0)
    maps = net.features(torch.randn(2, 3, 32, 32))
    assert maps.min() >= 0
    assert maps.max() > 6


def test_dropout_is_an_option_of_the_imagenet_network() -> None:
    with torch.device("meta"):
        net = create("vgg16_bn", dropout=0.1)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.1, 0.1]


def test_tensors_are_named_and_shaped_as_in_torchvision(torchvision_models: ModuleType) -> None:
    with torch.device("meta"):
        ours, theirs = vgg16_bn(n_classes=5), torchvision_models.vgg16_bn(num_classes=5)
    assert _shapes(ours) == _shapes(theirs)


@pytest.mark.slow
def test_with_torchvisions_weights_it_computes_what_torchvision_computes(
    torchvision_models: ModuleType,
) -> None:
    theirs = torchvision_models.vgg16_bn(num_classes=5).eval()
    ours = vgg16_bn(n_classes=5).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
