"""Proposals for kernels: what is planted is found, counted right, applied, pruned and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.design import ByEnergy, ByEntropy, SharedBasis, SmallerKernel, output_error, suggest_kernels
from compressor.errors import InputError

X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)).double()


class Net(nn.Module):
    """A residual network; `crop` has almost nothing in its outer ring, `few` two shapes, `free` is random."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.crop = nn.Conv2d(3, 16, 5, padding=2, stride=2)
        self.norm = nn.BatchNorm2d(16)
        self.few = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.free = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)
        self.crop.weight.data *= F.pad(torch.ones(3, 3), (1, 1, 1, 1))
        shapes = torch.tensor([[[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], [[1, 0, -1], [2, 0, -2], [1, 0, -1]]])
        self.double()
        self.few.weight.data = torch.tensordot(torch.randn(16, 16, 2).double(), shapes.double(), dims=1) / 30

    def forward(self, x: Tensor) -> Any:
        y = F.relu(self.norm(self.crop(x)))
        y = F.relu(y + self.few(y))
        return self.head(F.relu(self.free(y)).mean((2, 3)))


def test_planted_rings_and_shapes_are_found() -> None:
    net = Net().eval()
    proposal = suggest_kernels(net, X)
    assert proposal.changes == {"crop": SmallerKernel(1), "few": SharedBasis(2)}
    assert [row.energy_lost for row in proposal.layers] == pytest.approx([0, 0, 0], abs=1e-12)
    # Nothing is lost, so nothing moves: float64.
    assert proposal.output_error < 1e-12
    small = proposal.apply(net)
    assert output_error(net, small, X) == proposal.output_error
    assert isinstance(net.few, nn.Conv2d)


def test_macs_are_those_of_the_profile() -> None:
    net = Net().eval()
    proposal = suggest_kernels(net, X)
    assert proposal.macs == cp.profile(net, X).macs
    assert proposal.suggested_macs == cp.profile(proposal.apply(net), X).macs
    by_hand = 2 * 36 * (16 * 3 * 9 + 2 * (16 * 9 + 16 * 16) + 16 * 16 * 9) + 2 * 64
    assert proposal.suggested_macs == by_hand


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_changed_model_is_pruned_and_exported(tmp_path: Path) -> None:
    net = Net().float().eval()
    x = X.float()
    small = suggest_kernels(net, x).apply(net)
    pruned = cp.prune(small, x, budget=cp.budget.Macs(0.5))
    assert cp.profile(pruned, x).macs <= cp.profile(small, x).macs / 2
    cp.export.onnx(pruned, x, tmp_path / "net.onnx")  # checked in onnxruntime
    assert (tmp_path / "net.onnx").is_file()


def test_a_ring_with_more_than_the_share_stays() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 64, 3, padding=1)
    conv.weight.data *= 0.1
    conv.weight.data[:, :, 1, 1] *= 40
    outside = SmallerKernel(1).energy_lost(conv)
    net = nn.Sequential(conv)
    x = X.float()
    assert suggest_kernels(net, x, basis=None, discard=outside * 1.01).changes == {"0": SmallerKernel(1)}
    assert suggest_kernels(net, x, basis=None, discard=outside * 0.99).changes == {}


def test_seven_by_seven_loses_as_many_rings_as_are_empty() -> None:
    conv = nn.Conv2d(3, 4, 7, padding=3)
    conv.weight.data *= F.pad(torch.ones(3, 3), (2, 2, 2, 2))
    assert suggest_kernels(nn.Sequential(conv), X.float()).changes == {"0": SmallerKernel(2)}
    conv.padding = (1, 1)  # one ring can go, two would move the outputs
    conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
    proposal = suggest_kernels(nn.Sequential(conv), X.float(), basis=None)
    assert proposal.changes == {"0": SmallerKernel(1)}
    assert "outputs would move" in str(proposal)


def test_random_kernels_stay() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3))
    proposal = suggest_kernels(net, X.float())
    assert proposal.changes == {} and proposal.output_error == 0
    assert proposal.suggested_macs == proposal.macs


def test_a_change_has_to_save_its_share() -> None:
    net = Net().float().eval()
    saved = 1 - (2 / 9 + 2 / 16)  # by the two shapes of `few`
    x = X.float()
    assert "few" in suggest_kernels(net, x, least_saving=saved - 0.01).changes
    assert "few" not in suggest_kernels(net, x, least_saving=saved + 0.01).changes


def test_the_rule_for_the_basis_is_the_callers() -> None:
    net = Net().float().eval()
    assert suggest_kernels(net, X.float(), basis=lambda weight: 1).changes["few"] == SharedBasis(1)
    assert suggest_kernels(net, X.float(), basis=ByEnergy(0.999)).changes["few"] == SharedBasis(2)
    assert "few" not in suggest_kernels(net, X.float(), basis=None).changes


def test_zeros_get_the_least_and_are_named() -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1)
    conv.weight.data.zero_()
    proposal = suggest_kernels(nn.Sequential(conv), X.float())
    assert proposal.changes == {"0": SmallerKernel(1)} and proposal.output_error == 0
    assert "0: nothing but zeros" in str(proposal)


def test_depthwise_layers_can_be_cropped_and_share_nothing() -> None:
    conv = nn.Conv2d(3, 3, 5, padding=2, groups=3)
    conv.weight.data *= F.pad(torch.ones(3, 3), (1, 1, 1, 1))
    (row,) = suggest_kernels(nn.Sequential(conv), X.float()).layers
    assert row.change == SmallerKernel(1) and row.shapes is None


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 3, 3)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))

    def forward(self, x: Tensor) -> Any:
        return self.normed(self.first(x))


def test_what_cannot_be_changed_is_listed_with_the_reason() -> None:
    text = str(suggest_kernels(Spare(), X.float()))
    assert "normed: it is a ParametrizedConv2d" in text
    assert "unused: it does not run on the example inputs" in text


class ReadsWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 40, 3)

    def forward(self, x: Tensor) -> Any:
        return self.conv(x.to(self.conv.weight.dtype))


def test_a_forward_that_reads_the_weight_of_a_convolution_is_named() -> None:
    with pytest.raises(InputError, match="does not run with its kernels changed: AttributeError"):
        suggest_kernels(ReadsWeight(), X.float(), basis=lambda weight: 1)
    assert suggest_kernels(ReadsWeight(), X.float(), basis=None).changes == {}


def test_a_table_that_is_read() -> None:
    net = Net().eval()
    assert str(suggest_kernels(net, X)).splitlines()[:8] == [
        "Net",
        "layer  suggestion              kernel  outer ring  shapes  lost     MACs  suggested MACs",
        "-" * 88,
        "crop   SmallerKernel(rings=1)     5x5        0.0%       9  0.0%   86,400          31,104",
        "few    SharedBasis(size=2)        3x3       65.6%       2  0.0%  165,888          57,600",
        "free   -                          3x3       89.4%       9     -  165,888         165,888",
        "-" * 88,
        "total                                                            418,304         254,720",
    ]


def test_a_model_without_convolutions_is_refused() -> None:
    with pytest.raises(InputError, match="no convolution"):
        suggest_kernels(nn.Linear(3, 2), torch.ones(1, 3))


def test_kernels_of_one_place_stay() -> None:
    proposal = suggest_kernels(nn.Sequential(nn.Conv2d(3, 4, 1)), X.float())
    assert proposal.changes == {} and proposal.layers[0].outside == 0


def test_nan_weights_are_named() -> None:
    net = Net()
    net.few.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="the weight of few"):
        suggest_kernels(net, X)


@pytest.mark.parametrize("share", [-0.1, 1.0, True])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(InputError, match="discard"):
        suggest_kernels(Net(), X.float(), discard=share)
    with pytest.raises(InputError, match="least_saving"):
        suggest_kernels(Net(), X.float(), least_saving=share)


def test_the_default_rule_is_that_of_the_entropy() -> None:
    net = Net().float().eval()
    assert (
        suggest_kernels(net, X.float()).changes == suggest_kernels(net, X.float(), basis=ByEntropy()).changes
    )
