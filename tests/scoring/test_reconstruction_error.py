"""The reconstruction error is the share of variance that a refit leaves, on the scale of where it ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.errors import InputError, ScoreError
from compressor.scoring import Norm, ReconstructionError, Scorer
from compressor.testing import ScorerContract


class TestContract(ScorerContract):
    tolerance = 1e-3

    def make(self) -> Scorer:
        return ReconstructionError(self.batches(), otherwise=Norm())


def unexplained(x: Tensor, y: Tensor) -> float:
    """The variance that a least-squares fit with intercept leaves, summed over outputs."""
    rows = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1).numpy()
    weights, *_ = np.linalg.lstsq(rows, y.numpy(), rcond=None)
    return float(((y.numpy() - rows @ weights) ** 2).mean(0).sum())


def test_growth_adds_up_to_what_the_refit_leaves() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = torch.randn(90, 4, dtype=torch.float64)
    scores = cp.score(cp.capture(net, x), ReconstructionError([x[:50], x[50:]], ridge=1e-12))
    with torch.no_grad():
        read, wrote = F.relu(net[0](x)), net(x)
    order = np.argsort(scores.values)
    axis = next(a for a in scores.graph.axes if a.tensor == "2.weight" and a.role == "reader")
    for count in range(1, 6):
        stay = [c for c in range(6) if axis.units[c] not in order[:count]]
        share = unexplained(read[:, stay], wrote) / float(wrote.var(0, correction=0).sum())
        # Scores never fall along the order, so their sum may lie above the growth, not under it.
        assert scores.values[order[:count]].sum() >= share * (1 - 1e-6)
    assert scores.values[order[:5]].sum() < 1.5 * share


class Block(nn.Module):
    """A hidden layer whose output is added to a stream of the given size, behind a norm."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(3, 5), nn.Linear(5, 3), nn.BatchNorm1d(3)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return self.size * x + self.norm(self.down(F.relu(self.up(x))))


def test_in_a_stream_the_error_is_a_share_of_the_streams_variance() -> None:
    x = torch.randn(200, 3, dtype=torch.float64)
    found = []
    for size in (0.0, 30.0):
        torch.manual_seed(1)
        net = Block(size).double().eval()
        with torch.no_grad():
            net.norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
            branch, whole = net.norm(net.down(F.relu(net.up(x)))), net(x)
        scores = cp.score(cp.capture(net, x), ReconstructionError([x], ridge=1e-12))
        found.append(scores.values * float(whole.var(0, correction=0).sum()))
        assert float(branch.var(0, correction=0).sum()) > 0
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_equal_channels_are_found_and_the_order_is_held() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)).double()
    with torch.no_grad():
        for tensor in (net[0].weight, net[0].bias):
            tensor[4], tensor[5] = tensor[0], tensor[2]
    x = torch.randn(30, 3, 8, 8, dtype=torch.float64)
    values = cp.score(cp.capture(net, x), ReconstructionError([x], ridge=1e-10)).values
    free = np.argsort(values)[:2]
    assert len(set(values)) == 6
    assert sum(unit in (0, 4) for unit in free) == 1
    assert sum(unit in (2, 5) for unit in free) == 1
    assert values[free].max() < 1e-6 < 1e-3 < np.sort(values)[2]


def test_groups_that_nothing_reads_need_another_scorer() -> None:
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    graph = cp.capture(net, x)
    with pytest.raises(ScoreError, match="are read by no layer with weights"):
        cp.score(graph, ReconstructionError([x]))
    assert np.isfinite(cp.score(graph, ReconstructionError([x], otherwise=Norm())).values).all()


def test_bad_input_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(9, 4)
    graph = cp.capture(net, x)
    with pytest.raises(ScoreError, match=r"batch 1: activations at '2.weight' are not finite"):
        cp.score(graph, ReconstructionError([x, x * float("nan")]))
    with pytest.raises(InputError, match="gave no batch"):
        cp.score(graph, ReconstructionError([]))
    with pytest.raises(ScoreError, match=r"6 inputs .* at most max_inputs = 5"):
        cp.score(graph, ReconstructionError([x], max_inputs=5))
    with pytest.raises(InputError, match="ridge must be above 0"):
        ReconstructionError([x], ridge=0)
    with pytest.raises(InputError, match="max_batches must be at least 1"):
        ReconstructionError([x], max_batches=0)
