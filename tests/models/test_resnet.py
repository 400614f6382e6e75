from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.errors import InputError
from compressor.models import create
from compressor.models.resnet import ResNet


def test_parameters_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        net = create("resnet50")
    assert sum(p.numel() for p in net.parameters()) == 25_557_032


def test_macs_are_those_of_the_pruning_literature(count_macs: Callable[[nn.Module, int], int]) -> None:
    assert count_macs(create("resnet50"), 224) == pytest.approx(4.089e9, rel=0.001)


def test_it_computes_what_torchvisions_computes(torchvision_models: ModuleType) -> None:
    theirs, ours = torchvision_models.resnet50(weights=None).eval(), create("resnet50").eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_the_second_convolution_strides() -> None:
    block = create("resnet50", width=8).layer2[0]  # type: ignore[index]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


def test_streams_and_insides_can_be_pruned() -> None:
    net = create("resnet50", width=4, n_classes=3)
    x = torch.randn(2, 3, 32, 32)
    small = cp.prune(net, x, budget=cp.budget.Macs(0.5))
    assert small(x).shape == (2, 3)


@pytest.mark.parametrize("blocks", [(1, 1, 1), (1, 1, 1, 0)])
def test_blocks_that_make_no_network(blocks: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="blocks"):
        ResNet(blocks)
