"""One small network, its graph, and tables of two synthetic runtimes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.profiling import LatencyTable, latency_table
from tests.profiling.latency_table.synthetic import Synthetic


def network() -> nn.Sequential:
    """Four convolutions, one of them depthwise, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 96, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(96, 96, 3, padding=1, groups=96),
        nn.ReLU(),
        nn.Conv2d(96, 48, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    ).eval()


@pytest.fixture(scope="session")
def graph() -> Graph:
    return capture(network(), torch.zeros(1, 3, 16, 16))


@pytest.fixture(scope="session")
def in_blocks(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    """Of a runtime that fills channels up to 16, and is three times slower for odd widths."""
    path = tmp_path_factory.mktemp("tables") / "blocks.json"
    return latency_table(graph, runtime=Synthetic(block=16, odd=3.0), path=path)


@pytest.fixture(scope="session")
def smooth(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    """Of a runtime that takes every width for what it is worth."""
    return latency_table(graph, runtime=Synthetic(), path=tmp_path_factory.mktemp("tables") / "smooth.json")
