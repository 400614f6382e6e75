"""The largest network that a ratio gives within a fraction of the MACs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.bisection import largest_within

X = torch.zeros(1, 8)


def _net(width: int) -> nn.Module:
    """MACs: 8 * width + 4 * width."""
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


def test_the_largest_width_within_the_fraction_is_found() -> None:
    found = largest_within(0.5, _net(100), X, lambda ratio: _net(max(1, round(100 * (1 - ratio)))))
    assert isinstance(found[0], nn.Linear) and found[0].out_features == 50


def test_a_ratio_that_leaves_nothing_is_too_much() -> None:
    asked = []

    def cut(ratio: float) -> nn.Module | None:
        asked.append(ratio)
        return None if ratio > 0.3 else _net(round(100 * (1 - ratio)))

    with pytest.raises(RuntimeError, match=r"no ratio reaches 0\.5"):
        largest_within(0.5, _net(100), X, cut)
    assert len(asked) == 10 and asked[0] == 0.5


def test_steps_that_jump_over_the_fraction_end_below_it() -> None:
    found = largest_within(0.5, _net(96), X, lambda ratio: _net(max(32, 32 * round(3 * (1 - ratio)))))
    assert isinstance(found[0], nn.Linear) and found[0].out_features == 32
