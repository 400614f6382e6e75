"""Pruning in the midst of a training: the optimizer goes along, and every step is proved."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.errors import InputError, VerifyError
from compressor.training import GradualPruning, gradual
from tests.training.conftest import make_data, make_net

X, Y = make_data(12)


def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    F.cross_entropy(net(X), Y).backward()
    optimizer.step()


def test_it_reaches_what_prune_reaches_in_as_many_steps() -> None:
    net, reference = make_net(), make_net()
    pruning = GradualPruning(net, X, budget=cp.budget.Uniform(0.75), steps=3)
    widths = []
    while not pruning.done:
        pruning.step_()
        widths.append(net[0].out_channels)
    small = cp.prune(reference, X, budget=cp.budget.Uniform(0.75), steps=3)
    assert widths == sorted(widths, reverse=True) and widths[-1] == 2
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name])
    assert pruning.plan == cp.plan_of(small)


def test_the_optimizer_trains_on_with_its_momentum() -> None:
    """What stays is trained as it would have been: the cut commutes with the optimizer's step."""
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(3):
        step(net, optimizer)
    before = optimizer.state[net[0].weight]["exp_avg"].clone()
    parameter = net[0].weight
    plan = GradualPruning(net, X, budget=cp.budget.Uniform(0.5), steps=1).step_(optimizer)
    keep = next(cut.keep for cut in plan.cuts if cut.tensor == "0.weight")
    assert net[0].weight is parameter
    assert torch.equal(optimizer.state[parameter]["exp_avg"], before[list(keep)])
    step(net, optimizer)


def test_no_step_is_left_when_it_is_done() -> None:
    pruning = GradualPruning(make_net(), X, budget=cp.budget.Uniform(0.5), steps=1)
    pruning.step_()
    with pytest.raises(InputError, match="all steps"):
        pruning.step_()


class Flipped(nn.ReLU):
    """Channels the wrong way round: all shapes fit."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(1)


def test_a_wrong_result_is_found_before_the_model_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Sequential, plan: cp.Plan) -> nn.Module:
        small = cp.apply(model, plan)
        small[2] = Flipped()
        return small

    net = make_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    pruning = GradualPruning(net, X, budget=cp.budget.Uniform(0.5), steps=1)
    monkeypatch.setattr(gradual, "apply", wrong)
    with pytest.raises(VerifyError):
        pruning.step_()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not pruning.done
    monkeypatch.undo()
    pruning.step_()
    assert pruning.done and net[0].out_channels == 4


def test_what_is_no_budget() -> None:
    with pytest.raises(InputError, match="needs a budget"):
        GradualPruning(make_net(), X, budget=0.5, steps=1)  # type: ignore[arg-type]


def test_modes_and_data_are_left_alone() -> None:
    net = make_net()
    net.train()
    pruning = GradualPruning(net, X, budget=cp.budget.Uniform(0.5), steps=1)
    before: Tensor = net[1].running_mean.clone()
    pruning.step_()
    keep = next(cut.keep for cut in pruning.plan.cuts if cut.tensor == "1.running_mean")
    assert net.training and torch.equal(net[1].running_mean, before[list(keep)])
