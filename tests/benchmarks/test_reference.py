"""The oracle of the coverage benchmark: right cuts pass, planted mistakes do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import compressor as cp
from benchmarks.reference import CannotJudge, Skipping, error_against_reference
from benchmarks.scrambling import scrambled_
from benchmarks.zoo import Inputs

IMAGES = (2, 3, 8, 8)


class LayerNorm2d(nn.LayerNorm):
    """Normalises the channels of images, as torchvision's class of this name."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class RootMeanSquare(nn.Module):
    """A norm of its own making, over the last axis."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def conv_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.SiLU()),
        *(nn.Conv2d(12, 8, 3, groups=2), nn.BatchNorm2d(8), nn.Sigmoid()),
        *(nn.Conv2d(8, 6, 1), LayerNorm2d(6), nn.GELU()),
        *(nn.Flatten(), nn.Linear(6 * 16, 5)),
    ).eval()


def image_net(*middle: nn.Module) -> nn.Module:
    """Eight channels with a norm or another operator between their writer and their reader."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), *middle, nn.Sigmoid(), nn.Conv2d(8, 4, 3))


def token_net(*middle: nn.Module) -> nn.Module:
    """The same over the last axis: eight features of six tokens."""
    flat = Apply(lambda x: x.flatten(2).transpose(1, 2))
    return nn.Sequential(flat, nn.Linear(3, 8), *middle, nn.Sigmoid(), nn.Linear(8, 4))


NETWORKS = {
    "functional layer norm": token_net(Apply(lambda x: F.layer_norm(x, x.shape[-1:]))),
    "layer norm": token_net(nn.LayerNorm(8)),
    "RMS norm of torch": token_net(nn.RMSNorm(8, eps=1e-5)),
    "RMS norm in float32 by hand": token_net(RootMeanSquare(8)),
    "group norm": image_net(nn.GroupNorm(2, 8)),
    "instance norm": image_net(nn.InstanceNorm2d(8, affine=True)),
    "mean over channels": image_net(Apply(lambda x: x - x.mean(1, keepdim=True))),
    "variance over channels": image_net(Apply(lambda x: x / x.var(1, keepdim=True).add(1).sqrt())),
    "maximum over channels": image_net(Apply(lambda x: x - x.amax(1, keepdim=True))),
    "length over channels": image_net(Apply(lambda x: F.normalize(x, dim=1))),
    "transposed convolution": nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 2, 1)
    ),
    "weight norm": nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), parametrizations.weight_norm(nn.Conv2d(8, 6, 3)), nn.Conv2d(6, 2, 1)
    ),
}


def cut(net: nn.Module, x: Tensor, ratio: float = 0.5) -> cp.Plan:
    return cp.plan(cp.score(cp.capture(net, x), cp.scoring.Random(1)), cp.budget.Uniform(ratio))


@pytest.fixture
def pruned() -> tuple[nn.Module, Inputs, cp.Plan]:
    net, x = conv_net(), torch.randn(IMAGES, dtype=torch.float64)
    scrambled_(net, Inputs((x,)), seed=0)
    plan = cut(net, x)
    assert {"0.weight", "3.weight", "6.weight"} <= {cut.tensor for cut in plan.cuts}
    return net, Inputs((x,)), plan


def test_a_right_cut_has_the_error_of_rounding(pruned: tuple[nn.Module, Inputs, cp.Plan]) -> None:
    net, inputs, plan = pruned
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert error_against_reference(net, cp.apply(net, plan), plan, inputs) < 1e-14
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_operators_that_combine_channels_skip_the_missing_ones(name: str) -> None:
    net, x = NETWORKS[name].eval(), torch.randn(IMAGES, dtype=torch.float64)
    scrambled_(net, Inputs((x,)), seed=0)
    plan = cut(net, x)
    assert plan.cuts
    small = cp.apply(net, plan)
    assert error_against_reference(net, small, plan, Inputs((x,))) < 1e-13
    # The unpruned network is something else, so that the agreement says something.
    assert error_against_reference(net, net, plan, Inputs((x,))) > 1e-6


@pytest.mark.parametrize("tensor", ["3.weight", "6.weight", "10.weight"])
def test_one_wrong_channel_of_any_reader_is_seen(
    pruned: tuple[nn.Module, Inputs, cp.Plan], tensor: str
) -> None:
    net, inputs, plan = pruned
    cuts = list(plan.cuts)
    found = [i for i, cut in enumerate(cuts) if cut.tensor == tensor and cut.role == "reader"]
    cut = cuts[found[0]]
    width = cut.size // cut.blocks
    same_block = [(i, j) for i in cut.keep for j in cut.removed if i // width == j // width]
    out, other = same_block[0]
    keep = tuple(sorted({*cut.keep, other} - {out}))
    cuts[found[0]] = replace(cut, keep=keep)
    wrong = cp.apply(net, replace(plan, cuts=tuple(cuts)))
    assert error_against_reference(net, wrong, plan, inputs) > 1e-6


def test_an_output_of_another_shape_is_infinitely_wrong(
    pruned: tuple[nn.Module, Inputs, cp.Plan],
) -> None:
    net, inputs, plan = pruned
    longer = nn.Sequential(cp.apply(net, plan), nn.ZeroPad1d((0, 1)))
    assert error_against_reference(net, longer, plan, inputs) == float("inf")


def test_no_judgement_where_missing_values_reach_the_output() -> None:
    middle = Apply(lambda x: x)
    net, x = image_net(middle).double(), torch.randn(IMAGES, dtype=torch.float64)
    plan = cut(net, x)
    small = cp.apply(net, plan)
    middle.function = lambda x: x * x.prod(1, keepdim=True)
    with pytest.raises(CannotJudge, match="missing values"):
        error_against_reference(net, small, plan, Inputs((x,)))


def test_a_product_of_nothing_is_missing_and_a_sum_skips_what_is() -> None:
    nan = float("nan")
    a = torch.tensor([[1.0, nan], [nan, nan]], dtype=torch.float64)
    b = torch.tensor([[2.0, 3.0], [nan, nan]], dtype=torch.float64)
    with Skipping():
        product = a @ b
        total = a.sum(1)
    assert product[0].tolist() == [2.0, 3.0] and bool(product[1].isnan().all())
    assert total[0] == 1.0 and bool(total[1].isnan())
