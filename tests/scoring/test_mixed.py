"""Mixtures of scorers against arithmetic on what each says alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring import (
    FilterQuality,
    MeanActivation,
    Mixed,
    Norm,
    Product,
    Random,
    Scorer,
    Taylor,
    WeightFunction,
    score,
)
from compressor.testing import ScorerContract


class TestMixed(ScorerContract):
    def make(self) -> Scorer:
        return Mixed({FilterQuality(): 1, Norm(power=2): 0.5})


class TestMixedWithScorersOfData(ScorerContract):
    def make(self) -> Scorer:
        batches = self.batches()
        activations = MeanActivation(batches, otherwise=Norm())
        return Mixed(
            {FilterQuality(): 1, Taylor(batches, cross_entropy): 2, activations: 1}, normalize="mean"
        )


class TestProduct(ScorerContract):
    def make(self) -> Scorer:
        return Product({FilterQuality(terms=("live", "norm")): 2, Taylor(self.batches(), cross_entropy): 1})


class TestMixedOfMixtures(ScorerContract):
    def make(self) -> Scorer:
        return Mixed({Product({Norm(1): 1, FilterQuality(): 1}): 1, Mixed({Norm(): 1}): 1})


def shares(graph: Graph, scorer: Scorer) -> np.ndarray:
    values = score(graph, scorer).values
    return values / np.abs(values).mean()


def test_the_mean_and_the_product_are_of_scores_of_mean_size_one(residual: Graph) -> None:
    one, other = Norm(1, normalize="none"), Random(3)
    a, b = shares(residual, one), shares(residual, other)
    mixed = score(residual, Mixed({one: 1, other: 3}))
    np.testing.assert_allclose(mixed.values, (a + 3 * b) / 4)
    product = score(residual, Product({one: 1, other: 3}))
    np.testing.assert_allclose(product.values, a * b**3)


@pytest.mark.parametrize("kind", [Mixed, Product])
def test_one_scorer_alone_keeps_its_order_and_its_view_of_layers(kind: type, residual: Graph) -> None:
    for scorer in (Norm(normalize="none"), FilterQuality(), Random(1)):
        alone, mixed = score(residual, scorer).values, score(residual, kind({scorer: 1})).values
        np.testing.assert_allclose(mixed * np.abs(alone).mean(), alone)


def test_the_unit_of_a_scorer_does_not_matter_and_its_weight_does(residual: Graph) -> None:
    small = WeightFunction(lambda w, axis: 1e-9 * w.square().transpose(0, axis).flatten(1).sum(1))
    large = WeightFunction(lambda w, axis: 1e9 * w.square().transpose(0, axis).flatten(1).sum(1))
    weighted = [score(residual, Mixed({scorer: 1, Random(2): 1})).values for scorer in (small, large)]
    np.testing.assert_allclose(weighted[0], weighted[1])
    assert not np.allclose(weighted[0], score(residual, Mixed({small: 9, Random(2): 1})).values)


def test_a_zero_of_one_is_a_zero_of_the_product_and_not_of_the_mean(residual: Graph) -> None:
    with torch.no_grad():
        residual.model.get_parameter("inner.weight")[2] = 0
    own = next(a.units for a in residual.axes if (a.tensor, a.axis) == ("inner.weight", 0))
    scorers: dict[Scorer, float] = {FilterQuality(terms=("live", "read")): 1, Random(0): 1}
    assert np.flatnonzero(score(residual, Product(scorers)).values[own] == 0).tolist() == [2]
    assert (score(residual, Mixed(scorers)).values[own] > 0).all()


def test_scores_that_are_all_zero_stay_zero(residual: Graph) -> None:
    nothing = WeightFunction(lambda w, axis: torch.zeros(w.shape[axis]))
    assert (score(residual, Mixed({nothing: 1})).values == 0).all()
    assert (score(residual, Product({nothing: 1, Norm(): 1})).values == 0).all()


def test_negative_scores_have_no_product(residual: Graph) -> None:
    negative = WeightFunction(lambda w, axis: -w.square().transpose(0, axis).flatten(1).sum(1))
    assert np.isfinite(score(residual, Mixed({negative: 1, Norm(): 1})).values).all()
    with pytest.raises(ScoreError, match="negative score, expected numbers of at least 0"):
        score(residual, Product({Norm(): 1, negative: 1}))


@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan, True, "2"])
def test_weights_are_numbers_above_zero(weight: object) -> None:
    with pytest.raises(InputError, match=r"the weight of Norm\(p=2\) is a finite number above 0"):
        Mixed({Norm(): weight})  # type: ignore[dict-item]


@pytest.mark.parametrize("scorers", [{}, [Norm()], Norm()])
def test_scorers_come_in_a_mapping(scorers: object) -> None:
    with pytest.raises(InputError, match="Product takes a mapping from scorers to their weights"):
        Product(scorers)  # type: ignore[arg-type]


def test_functions_are_no_scorers() -> None:
    with pytest.raises(InputError, match="WeightFunction"):
        Mixed({torch.sum: 1})  # type: ignore[dict-item]


def test_a_mapping_that_is_changed_afterwards_does_not_matter() -> None:
    given: dict[Scorer, float] = {Norm(): 1}
    mixed = Mixed(given)
    given[Random(0)] = 2
    assert repr(mixed) == "Mixed(scorers={Norm(p=2): 1})"


def test_weights_that_are_not_finite_are_named(residual: Graph) -> None:
    with torch.no_grad():
        residual.model.get_parameter("inner.weight")[0] = math.nan
    with pytest.raises(ScoreError, match=r"inner.weight|not finite"):
        score(residual, Mixed({Norm(): 1}))
