"""Sums that a layer's output enters are found, and what is added is carried back to the layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.observing import Followed, followed


class Net(nn.Module):
    """One layer of three channels and what a test does with its output."""

    def __init__(self, after: Callable[[Net, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.other = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0, -3.0]))
        self.linear = nn.Linear(3, 3)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        nn.init.normal_(self.norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.running_var, 0.5, 2)  # type: ignore[arg-type]
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.conv(x), x)


def run(after: Callable[[Net, Tensor, Tensor], Tensor]) -> tuple[Net, Tensor, list[Followed]]:
    net = Net(after).double().eval()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    seen: list[Followed] = []
    with torch.no_grad(), followed(net, seen.append):
        net(x)
    return net, x, seen


def in_place(net: Net, y: Tensor, x: Tensor) -> Tensor:
    y = net.norm(y)
    y += x
    return F.relu(y, inplace=True)


SUMS: dict[str, Callable[[Net, Tensor, Tensor], Tensor]] = {
    "a sum": lambda net, y, x: y + x,
    "the other way round": lambda net, y, x: F.relu(torch.add(x, y)),
    "behind a norm": lambda net, y, x: net.norm(y) + x,
    "in place": in_place,
    "behind a layer scale": lambda net, y, x: x + (y.permute(0, 2, 3, 1) * net.scale).permute(0, 3, 1, 2),
    "behind views and dropout": lambda net, y, x: (
        F.dropout(y, 0.5, training=False).flatten(2).transpose(1, 2) + x.flatten(2).transpose(1, 2)
    ),
    "behind a shift": lambda net, y, x: y + net.scale[:, None, None] + x,
}


@pytest.mark.parametrize("name", SUMS)
def test_what_is_added_can_be_written_by_the_layer_instead(name: str) -> None:
    """Half of the sum's other operand, moved into the layer's output, leaves the sum as it is."""
    net, x, (one,) = run(SUMS[name])
    assert one.other is not None
    y = net.conv(x)
    moved = net.after(net, y + one.carried_back(one.other), torch.zeros_like(x))
    torch.testing.assert_close(moved, net.after(net, y, x))


NO_SUMS: dict[str, Callable[[Net, Tensor, Tensor], Tensor]] = {
    "nothing": lambda net, y, x: y,
    "an activation": lambda net, y, x: F.relu(y) + x,
    "an activation in place": lambda net, y, x: F.relu_(y) + x,
    "a use before the sum": lambda net, y, x: y + F.relu(y),
    "with itself": lambda net, y, x: y + y,
    "a broadcast": lambda net, y, x: y + x.mean(1, keepdim=True),
    "a weighted sum": lambda net, y, x: torch.add(y, x, alpha=2),
    "a gate": lambda net, y, x: y * x.sigmoid() + x,
    "dropout": lambda net, y, x: F.dropout(y, 0.5, training=True) + x,
}


@pytest.mark.parametrize("name", NO_SUMS)
def test_what_is_no_such_sum_is_told_apart(name: str) -> None:
    _, _, (one,) = run(NO_SUMS[name])
    assert one.other is None


def test_outputs_are_as_they_were_when_they_are_told() -> None:
    kept: list[Tensor] = []
    net = Net(lambda net, y, x: F.relu_(y)).eval()
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad(), followed(net, lambda one: kept.append(one.call.output.clone())):
        net(x)
    torch.testing.assert_close(kept[0], net.conv(x).detach())


def test_of_two_layers_in_one_sum_the_later_is_told_of_the_earlier() -> None:
    net, x, seen = run(lambda net, y, x: y + net.other(x))
    found = {one.call.weight: one.other for one in seen}
    assert found["conv.weight"] is None
    assert torch.equal(found["other.weight"], net.conv(x))


def test_scales_are_those_of_the_norm_and_zero_where_it_is_shut() -> None:
    def shut(net: Net, y: Tensor, x: Tensor) -> Tensor:
        net.norm.weight.data[1] = 0.0
        return net.norm(y) + x

    net, _, (one,) = run(shut)
    assert net.norm.running_var is not None
    expected = net.norm.weight / torch.sqrt(net.norm.running_var + net.norm.eps)
    torch.testing.assert_close(one.scales, expected.detach())
    assert one.scales[1] == 0
    assert one.statistics is net.norm.running_mean
