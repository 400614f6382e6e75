"""Small networks with channels of every kind, and their graphs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph


class ResidualNet(nn.Module):
    """Two convolutions write one stream; a third writes channels of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 6, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(6)
        self.outer = nn.Conv2d(6, 8, 1)
        self.last = nn.Conv2d(8, 7, 3)
        self.head = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.stem(x)))
        x = torch.relu(x + self.outer(torch.relu(self.bn2(self.inner(x)))))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


def scrambled(net: nn.Module) -> nn.Module:
    """The net in eval mode with every tensor drawn anew, so that no two channels are alike."""
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if tensor.ndim == 1 else torch.randn_like(tensor))
    return net.eval()


@pytest.fixture
def residual() -> Graph:
    return capture(scrambled(ResidualNet()), torch.randn(2, 3, 6, 6))


@pytest.fixture
def grouped() -> Graph:
    """Grouped convolution in the middle: its reading axis is counted over three blocks."""
    net = nn.Sequential(
        nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 9, 3, groups=3), nn.ReLU(), nn.Conv2d(9, 2, 1)
    )
    return capture(scrambled(net), torch.randn(1, 2, 5, 5))


@pytest.fixture
def chain() -> Graph:
    """Two linear layers with nothing but a ReLU between: the exact case of most formulas."""
    net = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 2))
    return capture(scrambled(net), torch.randn(2, 3))
