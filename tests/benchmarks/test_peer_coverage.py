"""The coverage of Torch-Pruning: what it removed is read from values, right and wrong cuts are told apart."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import peer_coverage
from benchmarks.peer_cuts import Changed, cuts_of
from benchmarks.zoo import BATCH, Entry, Inputs

Row = dict[str, Any]


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 4, 1)
        )


class Shuffled(nn.Module):
    """Channels change places between two convolutions, which Torch-Pruning takes for element-wise."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mixed, self.last = nn.Conv2d(3, 8, 3), nn.ChannelShuffle(2), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mixed(torch.relu(self.first(x))))


def examined(kind: type[nn.Module]) -> Row:
    def build(seed: int) -> tuple[nn.Module, Inputs]:
        torch.manual_seed(seed)
        return kind().eval(), Inputs((torch.rand(BATCH, 3, 9, 9),))

    return peer_coverage.examine(Entry("tests", "nets", kind.__name__, build), lambda _: None)


def test_right_cuts_are_exact_and_smaller() -> None:
    row = examined(Plain)
    assert row["status"] == "exact", row
    assert row["left"] < 0.5 * row["parameters"]


def test_wrong_cuts_are_wrong() -> None:
    row = examined(Shuffled)
    assert row["status"] == "wrong", row
    assert "differs from the reference by" in row["failures"][0]


def test_what_this_library_keeps_is_left_alone() -> None:
    net = Plain().eval()
    alone = peer_coverage.left_alone(net, Inputs((torch.rand(BATCH, 3, 9, 9),)))
    assert alone == [net[4]]


def test_heads_are_given_by_number() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads, self.qkv, self.proj = 4, nn.Linear(16, 48), nn.Linear(16, 16)

    class Unnamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head_dim, self.q_proj, self.k_proj = 4, nn.Linear(16, 16), nn.Linear(16, 8)

    packed, own, unnamed = nn.MultiheadAttention(8, 2), Attention(), Unnamed()
    found = peer_coverage.head_counts(nn.Sequential(packed, own, unnamed))
    assert found == {packed: 2, own.qkv: 4, unnamed.q_proj: 4, unnamed.k_proj: 2}


def test_sizes_of_heads_are_set_as_the_examples_of_the_peer_do() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads, self.head_dim, self.all_head_size, self.scale = 4, 8, 32, 8
            self.query, self.key = nn.Linear(32, 32), nn.Linear(32, 32)

    net = Attention()
    counts, before = peer_coverage.head_counts(net), {net.query: 32, net.key: 32}
    net.query, net.key = nn.Linear(32, 16), nn.Linear(32, 16)
    counts |= {net.query: 4, net.key: 4}
    before |= {net.query: 32, net.key: 32}
    peer_coverage._set_by_hand_(net, counts, before)
    assert (net.num_heads, net.head_dim, net.all_head_size, net.scale) == (4, 4, 16, 8)


def test_cuts_are_read_from_what_is_left() -> None:
    net = nn.Sequential(nn.Embedding(6, 4, padding_idx=0), nn.Linear(4, 5)).double()
    for parameter in net.parameters():
        nn.init.uniform_(parameter)
    net[0].weight.data[0] = 0  # the row of the padding has no value of its own
    small = copy.deepcopy(net)
    small[0].weight.data = net[0].weight.data[:, [0, 3]]
    small[1].weight.data = net[1].weight.data[[1, 2]][:, [0, 3]]
    small[1].bias.data = net[1].bias.data[[1, 2]]
    found = {(cut.tensor, cut.axis): cut.removed for cut in cuts_of(net, small).cuts}
    assert found == {
        ("0.weight", 1): (1, 2),
        ("1.weight", 0): (0, 3, 4),
        ("1.weight", 1): (1, 2),
        ("1.bias", 0): (0, 3, 4),
    }


@pytest.mark.parametrize("change", ["new value", "other order", "one value off"])
def test_what_is_no_selection_is_refused(change: str) -> None:
    net = nn.Linear(4, 6).double()
    nn.init.uniform_(net.weight)
    small = copy.deepcopy(net)
    if change == "new value":
        small.weight.data = torch.rand(3, 4).double()
    elif change == "other order":
        small.weight.data = net.weight.data[:, [1, 0, 2, 3]]
    else:
        small.weight.data = net.weight.data[:3].clone()
        small.weight.data[1, 1] += 1
    with pytest.raises(Changed, match="weight"):
        cuts_of(net, small)
