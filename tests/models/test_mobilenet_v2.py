from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn

from compressor.errors import InputError
from compressor.models import mobilenet_v2, mobilenet_v2_cifar
from compressor.models.mobilenet_v2 import InvertedResidual


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_imagenet_network_has_as_many_parameters_as_torchvisions() -> None:
    assert count(mobilenet_v2()) == 3_504_872


def test_the_cifar_network_differs_in_the_last_layer_only() -> None:
    assert count(mobilenet_v2_cifar()) == 3_504_872 - 1281 * 1000 + 1281 * 10


def test_macs_are_those_of_the_paper(count_macs: Callable[[nn.Module, int], int]) -> None:
    assert count_macs(mobilenet_v2(), 224) == pytest.approx(300e6, rel=0.01)  # table 4


@pytest.mark.parametrize(("builder", "pixels", "left"), [(mobilenet_v2, 224, 7), (mobilenet_v2_cifar, 32, 4)])
def test_the_strides_leave_the_maps_the_sources_say(
    builder: Callable[[], nn.Module], pixels: int, left: int
) -> None:
    with torch.device("meta"):
        features = builder().eval().get_submodule("features")
        assert features(torch.zeros(2, 3, pixels, pixels)).shape == (2, 1280, left, left)


def test_a_block_adds_its_input_where_the_shapes_agree_and_only_there() -> None:
    x = torch.randn(2, 8, 6, 6)
    for stride, channels, adds in ((1, 8, True), (1, 16, False), (2, 8, False)):
        block = InvertedResidual(8, channels, stride=stride, expansion=6).eval()
        last = block.conv[-1]
        assert isinstance(last, nn.BatchNorm2d)
        nn.init.zeros_(last.weight)  # the branch is silent
        assert torch.equal(block(x), x) if adds else not block(x).any()


def test_activations_stop_at_six_and_bottlenecks_do_not() -> None:
    net = mobilenet_v2_cifar().eval()
    for module in net.features.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 50.0)
    stem, bottleneck = net.features[0], net.features[1]
    out = stem(torch.randn(2, 3, 32, 32))
    assert out.max() == 6
    assert bottleneck(out).max() > 6


def test_the_middle_of_every_block_is_depthwise() -> None:
    blocks = [m for m in mobilenet_v2().modules() if isinstance(m, InvertedResidual)]
    assert len(blocks) == 17  # the sum of the repeats in table 2
    for block in blocks:
        (middle,) = (m for m in block.modules() if isinstance(m, nn.Conv2d) and m.groups > 1)
        assert middle.groups == middle.in_channels == middle.out_channels


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
def test_tensors_are_named_and_shaped_as_in_torchvision(width: float, torchvision_models: ModuleType) -> None:
    with torch.device("meta"):
        ours = mobilenet_v2(width_multiplier=width)
        theirs = torchvision_models.mobilenet_v2(width_mult=width)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: t.shape for n, t in theirs.state_dict().items()
    }


def test_with_torchvisions_weights_it_computes_what_torchvision_computes(
    torchvision_models: ModuleType,
) -> None:
    theirs = torchvision_models.mobilenet_v2(num_classes=5).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh statistics would hide a swap
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    ours = mobilenet_v2(n_classes=5).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("wrong", [0, -0.5, float("nan")])
def test_a_width_multiplier_that_is_not_positive_is_refused(wrong: float) -> None:
    with pytest.raises(InputError, match="width_multiplier must be > 0, got"):
        mobilenet_v2_cifar(width_multiplier=wrong)
