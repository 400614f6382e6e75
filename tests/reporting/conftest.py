"""A small network whose cut is known by hand, and a report with every section."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.profiling import Latency, Timing
from compressor.reporting import Report
from compressor.scoring import Scores
from compressor.search import Curve, Frontier, Point, Sensitivity
from compressor.search.evaluating import weights_digest

# Of conv1 these go; conv2 writes the output.
REMOVED = (1, 4, 5)
TIMES = Latency((Timing(2.0, 1.9, 2.1, 1.0, 1.0, 1.0), Timing(1.0, 0.9, 1.1, 2.0, 1.8, 2.2)), 5, "a clock")


class Net(nn.Module):
    """3 -> 8 -> 4 channels on 6 x 6 pixels, with weights that no generator draws."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            for tensor in self.parameters():
                tensor.copy_(torch.arange(1.0, tensor.numel() + 1).sin().view_as(tensor))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(torch.relu(self.bn1(self.conv1(x))))


@dataclass(frozen=True, eq=False)
class Cut:
    """A network, what was cut from it, and what is known of both."""

    model: nn.Module
    small: nn.Module
    x: Tensor
    graph: Graph
    plan: Plan
    scores: Scores
    sensitivity: Sensitivity
    frontier: Frontier


@pytest.fixture(scope="session")
def cut() -> Cut:
    model = Net().eval()
    x = torch.linspace(0, 1, 2 * 3 * 36).view(2, 3, 6, 6)
    graph = cp.capture(model, x)
    values = [0.0 if unit in REMOVED else 1.0 + unit for unit in range(8)]
    scores = Scores(graph, values, "by hand")
    plan = graph.plan([unit in REMOVED for unit in range(8)], note="by hand, of 8 channels 3")
    curve = Curve("conv1.weight", 8, (2, 4, 6), (0.9, 0.8, 0.5), (10_000, 7_000, 4_000))
    digest = weights_digest(model)
    sensitivity = Sensitivity(
        "Net", digest, "Norm()", "accuracy", 0, 0.95, 16_000, (0.25, 0.5, 0.75), (curve,)
    )
    points = (
        Point("original", 0.95, {"macs": 16_000, "latency_ms": 2.0}),
        Point("half", 0.93, {"macs": 9_000, "latency_ms": 1.0}, plan),
        Point("worse", 0.6, {"macs": 12_000, "latency_ms": 1.5}),
    )
    frontier = Frontier(points, "accuracy", ("macs", "latency_ms"))
    return Cut(model, cp.apply(model, plan), x, graph, plan, scores, sensitivity, frontier)


@pytest.fixture(scope="session")
def full(cut: Cut) -> Report:
    """A report with all that can be given."""
    return cp.report(
        cut.model,
        cut.small,
        cut.x,
        latency=TIMES,
        scores=cut.scores,
        sensitivity=cut.sensitivity,
        frontier=cut.frontier,
        filters=(cp.filters.report(cut.model, cut.x), cp.filters.report(cut.small, cut.x)),
    )
