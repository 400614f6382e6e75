"""Convolutions with smaller or shared kernels: exact in float64 where nothing is lost, in any geometry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.design import KernelChange, SharedBasis, SmallerKernel, output_error, rewrite_kernels
from compressor.errors import InputError

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def example(dims: int) -> Tensor:
    side = {1: 23, 2: 15, 3: 11}[dims]
    return torch.randn(2, 4, *[side] * dims, generator=torch.Generator().manual_seed(5)).double()


def conv_of(dims: int, size: int | tuple[int, ...], **options: Any) -> Any:
    torch.manual_seed(0)
    kind: Callable[..., nn.Module] = CONVS[dims]
    return kind(4, 6, size, **options).double()


def empty_rings_(conv: Any, rings: int) -> None:
    """Zeros in the outer rings, where the sides are long enough."""
    mask = torch.zeros(conv.kernel_size)
    inner = [min(rings, (k - 1) // 2) for k in conv.kernel_size]
    mask[tuple(slice(n, k - n) for n, k in zip(inner, conv.kernel_size, strict=True))] = 1
    conv.weight.data *= mask


GEOMETRIES = [
    (dims, size, stride, dilation, mode)
    for dims in (1, 2, 3)
    for size in (3, 4, 5)
    for stride, dilation in ((1, 1), (2, 1), (3, 2))
    for mode in ("zeros", "circular", "replicate", "reflect")
    if dims < 3 or (size, mode) in ((3, "zeros"), (4, "circular"), (5, "replicate"))
]


@pytest.mark.parametrize(("dims", "size", "stride", "dilation", "mode"), GEOMETRIES)
def test_a_crop_of_empty_rings_is_exact(dims: int, size: int, stride: int, dilation: int, mode: str) -> None:
    conv = conv_of(dims, size, stride=stride, dilation=dilation, padding=2, padding_mode=mode)
    empty_rings_(conv, 1)
    small = SmallerKernel(1).of(conv)
    assert small.kernel_size == (size - 2,) * dims
    assert SmallerKernel(1).energy_lost(conv) == 0
    torch.testing.assert_close(small(example(dims)), conv(example(dims)), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("size", [(5, 3), (1, 7), (4, 3)])
def test_sides_of_different_lengths_are_cropped_as_far_as_they_go(size: tuple[int, int]) -> None:
    conv = conv_of(2, size, padding=(2, 3))
    for rings in (1, 2):
        if rings > (max(size) - 1) // 2:
            continue
        empty_rings_(conv, rings)
        small = SmallerKernel(rings).of(conv)
        torch.testing.assert_close(small(example(2)), conv(example(2)), rtol=1e-13, atol=1e-13)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_same_padding_stays_same() -> None:
    for size in (5, 4):
        conv = conv_of(2, size, padding="same", dilation=3)
        empty_rings_(conv, 1)
        small = SmallerKernel(1).of(conv)
        assert small.padding == "same"
        torch.testing.assert_close(small(example(2)), conv(example(2)), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("padding", [0, 1, "valid"])
def test_a_crop_that_would_move_the_outputs_is_refused(padding: int | str) -> None:
    conv = conv_of(2, 5, padding=padding, dilation=2)
    with pytest.raises(InputError, match="outputs would move"):
        SmallerKernel(1).of(conv)


def test_what_a_crop_loses_is_the_energy_of_the_rings() -> None:
    conv = conv_of(2, 5, padding=2)
    inside = conv.weight[:, :, 1:4, 1:4].square().sum() / conv.weight.square().sum()
    assert SmallerKernel(1).energy_lost(conv) == pytest.approx(1 - inside.item())


BASES = [
    (dims, size, groups, stride, mode)
    for dims, size in ((1, 5), (2, 3), (2, 4), (3, 2))
    for groups in (1, 2)
    for stride in (1, 2)
    for mode in ("zeros", "circular")
]


@pytest.mark.parametrize(("dims", "size", "groups", "stride", "mode"), BASES)
def test_as_many_shared_kernels_as_there_are_shapes_are_exact(
    dims: int, size: int, groups: int, stride: int, mode: str
) -> None:
    conv = conv_of(dims, size, groups=groups, stride=stride, padding=1, padding_mode=mode)
    shapes = torch.randn(2, *conv.kernel_size).double()
    conv.weight.data = torch.tensordot(torch.randn(6, 4 // groups, 2).double(), shapes, dims=1)
    small = SharedBasis(2).of(conv)
    torch.testing.assert_close(small(example(dims)), conv(example(dims)), rtol=1e-11, atol=1e-11)
    assert SharedBasis(2).energy_lost(conv) < 1e-24 < SharedBasis(1).energy_lost(conv)


def test_a_full_basis_is_exact_for_any_weight() -> None:
    conv = conv_of(2, 3, padding=1, dilation=2, bias=False)
    small = SharedBasis(9).of(conv)
    torch.testing.assert_close(small(example(2)), conv(example(2)), rtol=1e-11, atol=1e-11)
    assert output_error(conv, SharedBasis(3).of(conv), example(2)) > 0.1


@pytest.mark.parametrize("change", [SmallerKernel(1), SharedBasis(1), SharedBasis(3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_macs_are_those_of_the_profile(change: KernelChange, groups: int) -> None:
    conv = conv_of(2, 3, padding=1, stride=2, groups=groups)
    small = change.of(conv)
    places = 2 * 8 * 8
    assert cp.profile(small, example(2)).macs == places * change.macs_at(conv)


def test_the_share_of_macs_that_a_basis_leaves() -> None:
    conv = nn.Conv2d(16, 32, 3)
    assert SharedBasis(4).macs_at(conv) / conv.weight.numel() == pytest.approx(4 / 9 + 4 / 32)


@pytest.mark.parametrize("change", [SmallerKernel(1), SharedBasis(2)])
def test_what_a_convolution_is_its_successor_is(change: KernelChange) -> None:
    conv = nn.Conv2d(4, 6, 3, padding=1, dtype=torch.float16).eval()
    conv.weight.requires_grad_(False)
    small = change.of(conv)
    found = [module for module in small.modules() if isinstance(module, nn.Conv2d)]
    assert all(m.weight.dtype == torch.float16 and not m.weight.requires_grad for m in found)
    assert not any(module.training for module in small.modules())
    assert found[-1].bias is not None and conv.bias is not None
    assert torch.equal(found[-1].bias, conv.bias) and found[-1].bias is not conv.bias
    assert found[-1].bias.requires_grad


HINDRANCES = [
    (SharedBasis(1), nn.Conv2d(4, 4, 1), "one place only"),
    (SharedBasis(1), nn.Conv2d(4, 8, 3, groups=4), "depthwise"),
    (SharedBasis(10), nn.Conv2d(4, 8, 3), "1 to 9 kernels"),
    (SharedBasis(0), nn.Conv2d(4, 8, 3), "1 to 9 kernels"),
    (SmallerKernel(1), nn.Conv2d(4, 4, 1), "0 outer rings"),
    (SmallerKernel(1), nn.Conv1d(4, 4, 2), "0 outer rings"),
    (SmallerKernel(2), nn.Conv2d(4, 4, 3, padding=2), "1 outer rings"),
    (SmallerKernel(0), nn.Conv2d(4, 4, 3, padding=2), "1 outer rings"),
]


@pytest.mark.parametrize(("change", "conv", "why"), HINDRANCES)
def test_what_hinders_a_change_is_said(change: KernelChange, conv: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        change.of(conv)


class Shared(nn.Module):
    """One convolution under two names, and called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.again, self.other = self.first, nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Any:
        return self.other(self.again(self.first(x)))


def test_a_shared_convolution_is_changed_wherever_it_is() -> None:
    net = Shared().double()
    small = rewrite_kernels(net, {"first": SharedBasis(9)})
    assert small.first is small.again and isinstance(small.first, nn.Sequential)
    assert output_error(net, small, example(2)) < 1e-12
    assert isinstance(net.first, nn.Conv2d)


def test_all_else_is_the_same_and_nothing_is_shared_with_the_original() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    small = rewrite_kernels(net, {"0": SharedBasis(2)})
    theirs = {id(t) for t in (*net.parameters(), *net.buffers())}
    assert theirs.isdisjoint(id(t) for t in (*small.parameters(), *small.buffers()))
    now, then = net.state_dict(), small.state_dict()
    for name in now:
        if not name.startswith("0."):
            assert torch.equal(now[name], then[name])


class Doubled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def tied() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    net[1].weight = net[0].weight
    return net


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(4, 4, 3))
    net[0].register_forward_hook(lambda module, args, output: output * 2)
    return net


UNTOUCHABLE: dict[str, Callable[[], nn.Module]] = {
    "a Doubled": lambda: nn.Sequential(Doubled(4, 4, 3)),
    "another module holds the same weight": tied,
    "it has hooks": hooked,
    "ParametrizedConv2d": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
    ),
}


@pytest.mark.parametrize("why", UNTOUCHABLE)
def test_what_would_be_lost_is_not_replaced(why: str) -> None:
    with pytest.raises(InputError, match=why):
        rewrite_kernels(UNTOUCHABLE[why](), {"0": SharedBasis(2)})


def test_a_name_that_is_no_convolution_is_refused() -> None:
    with pytest.raises(InputError, match="'1' is no convolution of the model; it has '0'"):
        rewrite_kernels(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), {"1": SharedBasis(1)})


def test_the_error_of_outputs_is_relative() -> None:
    net, other = nn.Linear(3, 2, bias=False).double(), nn.Linear(3, 2, bias=False).double()
    other.weight.data = net.weight.data * 1.25
    assert output_error(net, other, torch.randn(4, 3).double()) == pytest.approx(0.25)
    other.weight.data.zero_()
    assert output_error(net, other, torch.randn(4, 3).double()) == 1
    assert output_error(other, net, torch.randn(4, 3).double()) == math.inf
    assert output_error(other, other, torch.randn(4, 3).double()) == 0


def test_outputs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        output_error(nn.Linear(3, 2), nn.Linear(3, 4), torch.ones(1, 3))
    with pytest.raises(InputError, match="not finite"):
        output_error(nn.Linear(3, 2), nn.Linear(3, 2), torch.full((1, 3), math.nan))
