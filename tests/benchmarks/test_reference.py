"""The oracle of the coverage benchmark: right cuts pass, planted mistakes do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from benchmarks.reference import error_against_reference, scrambled_


class LayerNorm2d(nn.LayerNorm):
    """Normalises the channels of images, as torchvision's class of this name."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def conv_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.SiLU()),
        *(nn.Conv2d(12, 8, 3, groups=2), nn.BatchNorm2d(8), nn.Sigmoid()),
        *(nn.Conv2d(8, 6, 1), LayerNorm2d(6), nn.GELU()),
        *(nn.Flatten(), nn.Linear(6 * 16, 5)),
    ).eval()


@pytest.fixture
def pruned() -> tuple[nn.Module, Tensor, cp.Plan]:
    net, x = conv_net(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    scrambled_(net, x, seed=0)
    plan = cp.plan(cp.score(cp.capture(net, x), cp.scoring.Random(1)), cp.budget.Uniform(0.5))
    assert {"0.weight", "3.weight", "6.weight"} <= {cut.tensor for cut in plan.cuts}
    return net, x, plan


def test_a_right_cut_has_the_error_of_rounding(pruned: tuple[nn.Module, Tensor, cp.Plan]) -> None:
    net, x, plan = pruned
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert error_against_reference(net, cp.apply(net, plan), plan, x, auxiliary=False) < 1e-14
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("tensor", ["3.weight", "6.weight", "10.weight"])
def test_one_wrong_channel_of_any_reader_is_seen(
    pruned: tuple[nn.Module, Tensor, cp.Plan], tensor: str
) -> None:
    net, x, plan = pruned
    cuts = list(plan.cuts)
    found = [i for i, cut in enumerate(cuts) if cut.tensor == tensor and cut.role == "reader"]
    cut = cuts[found[0]]
    width = cut.size // cut.blocks
    same_block = [(i, j) for i in cut.keep for j in cut.removed if i // width == j // width]
    out, other = same_block[0]
    keep = tuple(sorted({*cut.keep, other} - {out}))
    cuts[found[0]] = replace(cut, keep=keep)
    wrong = cp.apply(net, replace(plan, cuts=tuple(cuts)))
    assert error_against_reference(net, wrong, plan, x, auxiliary=False) > 1e-6


def test_an_output_of_another_shape_is_infinitely_wrong(
    pruned: tuple[nn.Module, Tensor, cp.Plan],
) -> None:
    net, x, plan = pruned
    longer = nn.Sequential(cp.apply(net, plan), nn.ZeroPad1d((0, 1)))
    assert error_against_reference(net, longer, plan, x, auxiliary=False) == float("inf")
