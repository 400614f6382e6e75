"""Memory layouts: the same channels, however they lie in memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.core.capture import capture
from tests.core.driver import assert_prunes_exactly


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)])
def test_pooling_a_channels_last_tensor_to_one_position_is_exact(pool: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), pool, nn.Flatten(), nn.Linear(8, 4))
    net = net.to(memory_format=torch.channels_last).eval()
    x = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last)
    assert_prunes_exactly(net, x, free=8)


def test_a_tensor_laid_out_anew_pins_its_channels() -> None:
    class Anew(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).as_strided((2, 6), (1, 2)))

    graph = capture(Anew().eval(), torch.randn(2, 4))
    assert graph.n_units == 0
    assert "laid out anew" in graph.explain("first")
