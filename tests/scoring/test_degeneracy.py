"""Degeneracies of layers against hand counts and planted faults."""

from __future__ import annotations

import logging
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.filters.quality import PUBLISHED_THRESHOLD, Verdict
from compressor.scoring import degeneracies
from tests.scoring.conftest import scrambled


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def low_rank(out: int, entering: int, spread: tuple[float, ...]) -> Tensor:
    """A weight whose kernels vary along so many axes with these standard deviations; the rest is still."""
    values = torch.zeros(out * entering, 9)
    values[:, : len(spread)] = torch.randn(out * entering, len(spread)) * torch.tensor(spread)
    return values.view(out, entering, 3, 3)


def chain(*widths: int, norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for entering, leaving in pairwise(widths):
        layers += [nn.Conv2d(entering, leaving, 3, padding=1), *([nn.BatchNorm2d(leaving)] if norm else [])]
        layers += [nn.ReLU()]
    return scrambled(nn.Sequential(*layers))  # type: ignore[return-value]


def graph_of(net: nn.Module, channels: int = 8) -> Graph:
    return capture(net, torch.randn(1, channels, 6, 6))


def entropy(kernels: np.ndarray) -> float:
    shares = np.linalg.svd(kernels - kernels.mean(axis=0), compute_uv=False) ** 2
    shares = shares[shares > 1e-12 * shares.sum()] / shares.sum()
    return float(-(shares * np.log10(shares)).sum())


def test_the_share_is_what_is_missing_of_live_and_diverse_kernels() -> None:
    net = chain(8, 16, 16, 4)
    with torch.no_grad():
        net[0].weight.copy_(low_rank(16, 8, (1.0, 0.5, 0.2)))
        net[0].weight[3, :4] = 0  # 4 of 128 kernels
    first, second = degeneracies(graph_of(net)).groups
    kernels = net[0].weight.detach().double().numpy().reshape(-1, 9)
    threshold = 1.2618047 / (1 + math.exp(-0.88767525 * (math.log2(128) - 2.30436435))) - 0.31050834
    ratio = entropy(kernels) / threshold
    sparse = np.mean(np.abs(kernels).max(axis=1) < 0.01 * np.abs(kernels).max())
    assert first.sparsity == pytest.approx(sparse) and sparse >= 4 / 128
    assert first.entropy_ratio == pytest.approx(ratio, rel=1e-6)
    assert first.share == pytest.approx(1 - (1 - sparse) * ratio, rel=1e-6)
    assert first.layers == ("0.weight",) and first.group == "0.weight"
    assert second.share == pytest.approx(0, abs=0.05), "kernels of a normal distribution"


def test_dead_filters_and_unread_ones_are_counted_and_pointed_at() -> None:
    net = chain(8, 16, 16, 4)
    with torch.no_grad():
        net[0].weight[[2, 7]] = 0
        net[2].weight[:, [7, 9]] = 1e-9
    graph = graph_of(net)
    found = degeneracies(graph)
    units = next(a.units for a in graph.axes if (a.tensor, a.axis) == ("0.weight", 0))
    assert found.groups[0].dead == 3 and found.groups[1].dead == 0
    assert np.flatnonzero(found.dead[units]).tolist() == [2, 7, 9]


def test_a_norm_kills_filters_only_where_it_is_folded_in() -> None:
    net = chain(8, 16, 4, norm=True)
    with torch.no_grad():
        net[1].weight[5] = 1e-9
    graph = graph_of(net)
    assert degeneracies(graph).groups[0].dead == 1
    assert degeneracies(graph, fold_batch_norm=False).groups[0].dead == 0


def test_a_channel_of_a_stream_is_dead_only_where_all_that_write_it_are() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.last((x + self.two(x.relu())).relu()).mean((2, 3))

    net = scrambled(Stream())
    with torch.no_grad():
        net.one.weight[[1, 2]] = 0
        net.two.weight[[2, 3]] = 0
    graph = graph_of(net)
    units = next(a.units for a in graph.axes if (a.tensor, a.axis) == ("one.weight", 0))
    found = degeneracies(graph)
    assert np.flatnonzero(found.dead[units]).tolist() == [2]
    assert found.groups[0].layers == ("one.weight", "two.weight")


def test_random_layers_are_named(caplog: pytest.LogCaptureFixture) -> None:
    net = chain(8, 16, 16, 4)
    with torch.no_grad():
        net[0].weight.copy_(low_rank(16, 8, (1.0, 0.5)))
    with caplog.at_level(logging.INFO, logger="compressor.scoring.degeneracy"):
        found = degeneracies(graph_of(net))
    assert found.random == ("2.weight", "4.weight")
    assert "2.weight" in caplog.text
    assert Verdict.LOW_DIVERSITY in found.groups[0].verdicts


def test_a_random_layer_is_named_alone_where_it_writes_along_with_others() -> None:
    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.deep, self.last = (
                nn.Conv2d(8, 4, 3),
                nn.Conv2d(4, 4, 3, groups=4),
                nn.Conv2d(4, 2, 1),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.deep(self.one(x).relu()).relu()).mean((2, 3))

    found = degeneracies(graph_of(scrambled(Bottleneck())))
    assert found.groups[0].layers == ("one.weight", "deep.weight")
    assert found.random == ("one.weight",)
    assert found.groups[0].verdicts == (Verdict.RANDOM,)


def test_layers_that_cannot_be_judged_count_as_diverse_as_the_others() -> None:
    net = scrambled(nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 3)))
    with torch.no_grad():
        net[0].weight.copy_(low_rank(16, 8, (1.0, 0.5)))
        net[1].weight.abs_().clamp_(min=0.5)  # no kernel of it is sparse
    first, second = degeneracies(graph_of(net)).groups
    assert second.entropy_ratio is None and second.sparsity == 0
    assert first.entropy_ratio is not None
    assert second.share == pytest.approx(1 - first.entropy_ratio)


def test_of_matrices_the_dead_rows_count_and_not_single_small_numbers() -> None:
    net = scrambled(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)))
    with torch.no_grad():
        net[0].weight.copy_(torch.ones(6, 8))
        net[0].weight[1] = 0
        net[0].weight[4, :2] = 0
    (own,) = degeneracies(capture(net, torch.randn(2, 8))).groups
    assert own.sparsity == pytest.approx(1 / 6)
    assert own.share == pytest.approx(1 / 6)
    assert own.dead == 1 and own.entropy_ratio is None


def test_a_layer_of_zeros_is_degenerate_through_and_through() -> None:
    net = chain(8, 16, 16, 4)
    nn.init.zeros_(net[0].weight)
    own = degeneracies(graph_of(net)).groups[0]
    assert (own.sparsity, own.share, own.dead) == (1, 1, 16)


def test_one_filter_in_a_layer_is_no_fault() -> None:
    found = degeneracies(graph_of(chain(8, 1, 4, 4)))
    assert all(0 <= own.share <= 1 for own in found.groups)


def test_a_table_has_a_row_for_every_group() -> None:
    found = degeneracies(graph_of(chain(8, 16, 16, 4)))
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == ["group", "0.weight", "2.weight"]
    assert repr(found) == "Degeneracies(2 groups, 0 dead units)"


def test_the_published_threshold_is_the_one_that_is_used() -> None:
    net = chain(8, 32, 4)
    own = degeneracies(graph_of(net)).groups[0]
    kernels = net[0].weight.detach().double().numpy().reshape(-1, 9)
    assert own.entropy_ratio == pytest.approx(entropy(kernels) / PUBLISHED_THRESHOLD(256), rel=1e-6)


def test_weights_that_are_not_finite_are_named() -> None:
    net = chain(8, 16, 4)
    with torch.no_grad():
        net[2].weight[0, 0, 0, 0] = math.nan
    with pytest.raises(ScoreError, match=r"degeneracies: '2\.weight' holds 1 value that is NaN or infinite"):
        degeneracies(graph_of(net))


def test_a_model_is_no_graph() -> None:
    with pytest.raises(InputError, match="needs a captured graph"):
        degeneracies(chain(8, 16, 4))  # type: ignore[arg-type]
