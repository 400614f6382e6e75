"""WHC against a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressor.core.graph import Graph
from compressor.scoring import WHC, Scorer, score
from compressor.scoring.whc import hybrid_scores
from compressor.testing import ScorerContract


class TestWHC(ScorerContract):
    def make(self) -> Scorer:
        return WHC()


class TestWHCOfReaders(ScorerContract):
    def make(self) -> Scorer:
        return WHC(roles="reader", normalize="max")


def naive(filters: np.ndarray) -> list[float]:
    scores = []
    for i, own in enumerate(filters):
        total = 0.0
        for j, other in enumerate(filters):
            if i != j:
                lengths = np.linalg.norm(own) * np.linalg.norm(other)
                total += np.linalg.norm(other) * (1 - (abs(own @ other) / lengths if lengths else 0.0))
        scores.append(float(np.linalg.norm(own) * total))
    return scores


def test_the_formula_in_a_naive_loop() -> None:
    filters = torch.randn(7, 12, dtype=torch.float64)
    filters[3] = 0
    filters[5] = -2 * filters[1]
    np.testing.assert_allclose(hybrid_scores(filters), naive(filters.numpy()), rtol=1e-10, atol=1e-12)


def test_filters_are_compared_in_several_parts_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = torch.randn(9, 5)
    expected = hybrid_scores(filters)
    monkeypatch.setattr("compressor.scoring.whc._PRODUCTS_AT_ONCE", 20)
    np.testing.assert_allclose(hybrid_scores(filters), expected, rtol=1e-12)


def test_a_copy_of_a_long_filter_is_worth_less_than_a_short_one_of_its_own_direction() -> None:
    filters = torch.tensor([[3.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 1.5, 0.0], [0.0, 0.0, 3.0]])
    scores = hybrid_scores(filters)
    assert scores[0] == scores[1] < scores[3]
    parallel = filters.clone()
    parallel[3] = torch.tensor([-3.0, 0.0, 0.0])
    assert hybrid_scores(parallel).argmax() == 2, "the only one of its direction, though the shortest"


def test_units_of_a_layer_are_its_filters(residual: Graph) -> None:
    units = next(a.units for a in residual.axes if (a.tensor, a.axis) == ("inner.weight", 0))
    weight = residual.model.get_parameter("inner.weight").detach().double().flatten(1).numpy()
    np.testing.assert_allclose(score(residual, WHC(normalize="none")).values[units], naive(weight), rtol=1e-6)
