"""The network that is searched, and an evaluation that counts how often it is asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.search.evaluations import by_width, network, widths


class Counting:
    """`by_width` with a list of what was asked; `at` says what happens instead at the n-th call."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.at: dict[int, Callable[[], float]] = {}

    def __call__(self, net: nn.Module) -> float:
        self.asked.append(widths(net))
        return self.at[len(self.asked)]() if len(self.asked) in self.at else by_width(net)


@pytest.fixture
def net() -> nn.Sequential:
    """The network, the same in every test."""
    return network()


@pytest.fixture
def x() -> torch.Tensor:
    """An example input of it."""
    return torch.ones(1, 6)


@pytest.fixture
def counting() -> Counting:
    """An evaluation that counts its calls."""
    return Counting()
