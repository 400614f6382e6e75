from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.models import ResNetCifar, ZeroPadShortcut, create
from compressor.models.resnet_cifar import BasicBlock


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def parameters_by_hand(depth: int) -> int:
    """Option A, 10 classes: convolution weights, two BatchNorm vectors each, one linear layer."""

    def conv_bn(c_in: int, c_out: int) -> int:
        return 9 * c_in * c_out + 2 * c_out

    n = (depth - 2) // 6
    total = conv_bn(3, 16) + 64 * 10 + 10
    for before, width in ((16, 16), (16, 32), (32, 64)):
        total += conv_bn(before, width) + (2 * n - 1) * conv_bn(width, width)
    return total


def pad_naively(x: Tensor, front: int, back: int, stride: int) -> Tensor:
    n, channels, height, width = x.shape
    out = torch.zeros(n, front + channels + back, -(-height // stride), -(-width // stride))
    for c in range(channels):
        for i in range(0, height, stride):
            for j in range(0, width, stride):
                out[:, front + c, i // stride, j // stride] = x[:, c, i, j]
    return out


# Published with the checkpoints (20 to 56); He et al. 2015, table 6: 0.27, 0.46, 0.66, 0.85, 1.7 M.
@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_parameter_counts_are_the_published_ones(depth: int, parameters: int) -> None:
    assert count(create(f"resnet{depth}_cifar")) == parameters == parameters_by_hand(depth)


def test_option_b_adds_two_projections_with_batchnorm() -> None:
    more = count(ResNetCifar(20, shortcut="B")) - count(ResNetCifar(20))
    assert more == (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


# Li et al. 2017, table 1 ("FLOP" there are multiply-accumulates).
@pytest.mark.parametrize(("depth", "macs"), [(56, 1.25e8), (110, 2.53e8)])
def test_macs_are_those_of_the_pruning_literature(
    depth: int, macs: float, count_macs: Callable[[nn.Module, int], int]
) -> None:
    assert count_macs(create(f"resnet{depth}_cifar"), 32) == pytest.approx(macs, rel=0.005)


@pytest.mark.parametrize("depth", [20, 56])
def test_the_network_has_as_many_weighted_layers_as_its_name_says(depth: int) -> None:
    layers = [m for m in ResNetCifar(depth).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_stages_halve_the_map_and_double_the_filters() -> None:
    net, shapes = ResNetCifar(20, width=5), []
    for stage in (net.layer1, net.layer2, net.layer3):
        stage.register_forward_hook(lambda _module, _inputs, out: shapes.append(tuple(out.shape)))
    net(torch.randn(2, 3, 32, 32))
    assert shapes == [(2, 5, 32, 32), (2, 10, 16, 16), (2, 20, 8, 8)]


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(16, 32, 2), (3, 8, 1), (2, 5, 3), (4, 4, 2)])
def test_option_a_is_the_naive_formula(c_in: int, c_out: int, stride: int, size: int) -> None:
    x = torch.randn(2, c_in, size, size)
    shortcut = ZeroPadShortcut(c_in, c_out, stride)
    front = (c_out - c_in) // 2
    expected = pad_naively(x, front, c_out - c_in - front, stride)
    assert torch.equal(shortcut(x), expected)
    assert expected.shape[1] == c_out


def test_option_a_pads_a_quarter_of_the_output_on_each_side() -> None:
    shortcut = ZeroPadShortcut(16, 32, 2)
    assert (shortcut.pad_front, shortcut.pad_back) == (32 // 4, 32 // 4)


def test_option_a_follows_its_attributes() -> None:
    x, shortcut = torch.randn(2, 6, 4, 4), ZeroPadShortcut(6, 12, 2)
    shortcut.pad_front, shortcut.pad_back = 1, 4
    assert torch.equal(shortcut(x), pad_naively(x, 1, 4, 2))


def test_the_gradient_of_option_a_reaches_the_pixels_it_reads_and_no_others() -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    ZeroPadShortcut(2, 4, 2)(x).sum().backward()
    expected = torch.zeros(1, 2, 4, 4)
    expected[:, :, ::2, ::2] = 1
    assert x.grad is not None and torch.equal(x.grad, expected)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_a_block_with_silent_convolutions_is_its_shortcut(shortcut: str) -> None:
    block = BasicBlock(4, 8, stride=2, shortcut=shortcut).eval()  # type: ignore[arg-type]
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), block.shortcut(x).relu())


def test_a_block_of_equal_shape_adds_its_input() -> None:
    block = BasicBlock(4, 4, stride=1, shortcut="A").eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x.relu())


def test_images_of_another_size_are_taken() -> None:
    assert ResNetCifar(20).eval()(torch.randn(2, 3, 45, 28)).shape == (2, 10)


@pytest.mark.parametrize("depth", [2, 18, 21, 51])
def test_a_depth_that_does_not_exist_is_refused(depth: int) -> None:
    with pytest.raises(InputError, match=rf"depth must be 6n \+ 2 .* got {depth}"):
        ResNetCifar(depth)


def test_an_unknown_shortcut_is_refused() -> None:
    with pytest.raises(InputError, match="shortcut must be 'A' or 'B', got 'C'"):
        create("resnet20_cifar", shortcut="C")
