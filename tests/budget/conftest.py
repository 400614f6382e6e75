"""Small models whose graphs budgets choose on, and scores to choose by."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.scoring import Scores

ScoresOf = Callable[..., Scores]


class Branches(nn.Module):
    """A stem, a residual pair, a convolution in four groups, a depthwise one, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.ModuleDict({"one": nn.Conv2d(16, 24, 1), "two": nn.Conv2d(24, 16, 3, padding=1)})
        self.grouped = nn.Conv2d(16, 32, 3, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.point = nn.Conv2d(32, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.body["two"](self.body["one"](x).relu())
        x = self.depthwise(self.grouped(x.relu()).relu())
        return self.head(self.point(x).relu().mean((2, 3)))


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for entering, leaving in pairwise(widths):
        layers += [nn.Linear(entering, leaving), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.fixture(scope="session")
def branches() -> Graph:
    """The graph of a network with coupled, grouped and depthwise convolutions."""
    return capture(Branches().eval(), torch.zeros(1, 3, 12, 12))


@pytest.fixture(scope="session")
def graph_of() -> Callable[..., Graph]:
    """The graph of a perceptron with these widths."""
    return lambda *widths: capture(mlp(*widths), torch.zeros(1, widths[0]))


@pytest.fixture(scope="session")
def scored() -> ScoresOf:
    """Scores of a graph: random from a seed, or the given values."""

    def scores(graph: Graph, values: object = 0) -> Scores:
        if isinstance(values, int):
            values = np.random.default_rng(values).random(graph.n_units)
        return Scores(graph, np.asarray(values, dtype=np.float64), "by hand")

    return scores
