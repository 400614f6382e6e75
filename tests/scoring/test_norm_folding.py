"""Folded weights against the function that the network computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.scoring.norm_folding import contractions, folded_weights
from tests.scoring.conftest import scrambled


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


Layers = Callable[[], list[nn.Module]]
CASES: dict[str, tuple[Layers, tuple[int, ...]]] = {
    "convolution": (lambda: [nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)], (2, 4, 7, 7)),
    "biased": (lambda: [nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)], (2, 4, 7)),
    "volumes": (lambda: [nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4)], (2, 2, 3, 3, 3)),
    "grouped": (lambda: [nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)], (2, 4, 7, 7)),
    "depthwise": (lambda: [nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4)], (2, 4, 7, 7)),
    "transposed": (lambda: [nn.ConvTranspose2d(4, 6, 3), nn.BatchNorm2d(6)], (2, 4, 5, 5)),
    "transposed in groups": (
        lambda: [nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)],
        (2, 4, 5, 5),
    ),
    "matrix": (lambda: [nn.Linear(4, 6), nn.BatchNorm1d(6)], (3, 4)),
    "matrix without bias": (lambda: [nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6)], (3, 4)),
    "no scale": (lambda: [nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False)], (2, 4, 5, 5)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_folded_weight_alone_computes_what_both_do_up_to_a_constant(case: str) -> None:
    layers, shape = CASES[case]
    net = scrambled(nn.Sequential(*layers())).double()
    x, y = torch.randn(2, *shape, dtype=torch.float64)
    folded = folded_weights(capture(net, x))
    change = net(x) - net(y)  # in which every shift is gone
    with torch.no_grad():
        net[0].weight.copy_(folded["0.weight"])
        alone = net[0](x) - net[0](y)
    torch.testing.assert_close(alone, change)


class Read(nn.Module):
    """A convolution and a norm; its result is read again, if `also`, its weight used again, if `twice`."""

    def __init__(self, *, also: bool = False, twice: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.also, self.twice = also, twice

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.norm(y).relu()
        if self.twice:
            z = self.other(self.conv(z))
        return z + y if self.also else z


@pytest.mark.parametrize("options", [{"also": True}, {"twice": True}])
def test_what_else_reads_the_result_hinders_folding(options: dict[str, bool]) -> None:
    graph = capture(scrambled(Read(**options)), torch.randn(1, 3, 4, 4))
    assert torch.equal(
        folded_weights(graph)["conv.weight"], graph.model.get_parameter("conv.weight").detach()
    )
    plain = capture(scrambled(Read()), torch.randn(1, 3, 4, 4))
    assert not torch.equal(
        folded_weights(plain)["conv.weight"].float(), plain.model.get_parameter("conv.weight").detach()
    )


def test_layers_without_such_a_norm_are_as_they_are() -> None:
    nets = {
        "behind a sum": nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        "of another kind": nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)),
        "of each batch": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
    }
    for why, net in nets.items():
        graph = capture(scrambled(net), torch.randn(2, 3, 4, 4))
        assert torch.equal(folded_weights(graph)["0.weight"], net[0].weight.detach()), why


def test_statistics_of_the_batch_are_not_folded() -> None:
    class Always(nn.Module):
        def __init__(self, training: bool) -> None:
            super().__init__()
            self.conv, self.norm, self.always = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), training

        def forward(self, x: Tensor) -> Tensor:
            norm = self.norm
            args = norm.running_mean, norm.running_var, norm.weight, norm.bias
            return nn.functional.batch_norm(self.conv(x), *args, training=self.always)

    for training in (True, False):
        graph = capture(scrambled(Always(training)), torch.randn(2, 3, 4, 4))
        same = torch.equal(folded_weights(graph)["conv.weight"].float(), graph.model.conv.weight.detach())
        assert same == training


def test_a_weight_that_is_an_embedding_too_is_not_folded() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm, self.out = nn.Embedding(6, 4), nn.BatchNorm1d(6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            vectors = self.table(torch.zeros(len(x), dtype=torch.long)) + x
            return self.out(self.norm(vectors @ self.table.weight.T))

    graph = capture(scrambled(Tied()), torch.randn(3, 4))
    assert torch.equal(
        folded_weights(graph)["table.weight"], graph.model.get_parameter("table.weight").detach()
    )


def test_contractions_name_their_groups_and_sides() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4, 2),
    )
    found = contractions(capture(net, torch.randn(2, 4, 5, 5)).tape)
    assert [(use.weight, use.out_axis, use.groups) for use in found] == [
        ("0.weight", 0, 2),
        ("1.weight", 1, 1),
        ("4.weight", 0, 1),
    ]


def test_the_weights_are_those_of_now_and_the_model_stays() -> None:
    net = scrambled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    graph = capture(net, torch.randn(1, 3, 4, 4))
    first = folded_weights(graph)["0.weight"]
    before = net[0].weight.detach().clone()
    with torch.no_grad():
        net[1].weight.mul_(2)
    torch.testing.assert_close(folded_weights(graph)["0.weight"], 2 * first)
    assert torch.equal(net[0].weight, before)
