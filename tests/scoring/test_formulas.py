"""LAMP, GeometricMedian, BatchNormScale and Random against closed forms and naive loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring import (
    LAMP,
    BatchNormScale,
    GeometricMedian,
    Norm,
    Random,
    geometric_median,
    score,
)
from compressor.scoring.geometric_median import distance_sums
from compressor.scoring.lamp import lamp


def units_of(graph: Graph, tensor: str, axis: int = 0) -> np.ndarray:
    return next(a.units for a in graph.axes if (a.tensor, a.axis) == (tensor, axis))


# -- LAMP ----------------------------------------------------------------------------------------


@settings(deadline=None)  # timing is not what is tested
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_lamp_is_the_share_of_all_that_are_not_smaller(squares: list[int]) -> None:
    found = lamp(torch.tensor(squares, dtype=torch.float64))
    for u, value in enumerate(squares):
        sum_ = sum(other for other in squares if other >= value)
        assert found[u].item() == pytest.approx(value / sum_ if sum_ else 0.0)


def test_lamp_ranks_by_magnitude_and_the_largest_of_each_layer_scores_one(chain: Graph) -> None:
    values = score(chain, LAMP()).values[units_of(chain, "0.weight")]
    norms = chain.model.get_parameter("0.weight").norm(dim=1)
    assert values.argsort().tolist() == norms.argsort().tolist()
    assert values.max() == 1.0


# -- geometric median ----------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1 << 22, 16, 1])
def test_distance_sums_are_those_of_a_double_loop(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometric_median, "_DISTANCES_AT_ONCE", at_once)
    filters = torch.randn(7, 5, dtype=torch.float64) + 1000
    expected = [sum((a - b).norm().item() for b in filters) for a in filters]
    np.testing.assert_allclose(distance_sums(filters).numpy(), expected, rtol=1e-9)


def test_a_filter_that_others_replace_scores_least() -> None:
    net = nn.Sequential(nn.Linear(2, 5, bias=False), nn.ReLU(), nn.Linear(5, 1))
    corners = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.1]]
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(corners))
    assert score(capture(net, torch.ones(1, 2)), GeometricMedian()).values.argmin() == 4


def test_equal_filters_are_at_distance_zero() -> None:
    assert distance_sums(torch.full((6, 4), 0.1)).abs().max() < 1e-12


# -- BatchNorm scale -----------------------------------------------------------------------------


def test_slimming_scores_are_the_absolute_scales() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.ReLU(), nn.Conv1d(3, 1, 1)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([0.5, -2.0, 0.0]))
    graph = capture(net, torch.ones(1, 2, 4))
    values = score(graph, BatchNormScale()).values
    assert values[units_of(graph, "1.weight")].tolist() == [0.5, 2.0, 0.0]


def test_groups_without_batchnorm_are_named_and_the_fix_is_shown(residual: Graph) -> None:
    with pytest.raises(ScoreError) as error:
        score(residual, BatchNormScale())
    text = str(error.value)
    assert "1 of the 3 groups meet no BatchNorm with a scale: 'last.weight'" in text
    assert "BatchNormScale(otherwise=Norm())" in text


def test_otherwise_scores_exactly_the_groups_without_batchnorm(residual: Graph) -> None:
    found = score(residual, BatchNormScale(otherwise=Norm(1))).values
    last = units_of(residual, "last.weight")
    np.testing.assert_array_equal(found[last], score(residual, Norm(1)).values[last])
    inner = units_of(residual, "inner.weight")
    expected = residual.model.get_parameter("bn2.weight").detach().abs().numpy()
    np.testing.assert_allclose(found[inner], expected)


def test_otherwise_must_be_a_scorer() -> None:
    with pytest.raises(InputError, match=r"otherwise must be a Scorer such as Norm\(\)"):
        BatchNormScale(otherwise="norm")  # type: ignore[arg-type]


# -- random --------------------------------------------------------------------------------------


def test_seeds_decide_random_scores(residual: Graph) -> None:
    first, again, other = (score(residual, Random(seed)).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert ((first >= 0) & (first < 1)).all()


def test_random_scores_are_uniform_whatever_the_number_of_sites() -> None:
    """Means of draws would gather at one half: the spread of U(0, 1) is 1/√12 ≈ 0.2887."""
    net = nn.Sequential(nn.Linear(2, 4000), nn.BatchNorm1d(4000), nn.Linear(4000, 1)).eval()
    values = score(capture(net, torch.ones(1, 2)), Random()).values
    assert values.std() == pytest.approx(12**-0.5, abs=0.01)
    assert values.mean() == pytest.approx(0.5, abs=0.02)


def test_the_sites_of_a_unit_share_its_random_number(residual: Graph) -> None:
    values, sites = score(residual, Random(4)).values, Random(4).site_scores(residual)
    np.testing.assert_array_equal(
        sites["outer.weight", 1].numpy(), values[units_of(residual, "outer.weight", 1)]
    )


@pytest.mark.parametrize("seed", [-1, 0.5, "seed"])
def test_a_seed_is_a_whole_number(seed: int) -> None:
    with pytest.raises(InputError, match="a seed is an integer from 0 on, got"):
        Random(seed)
