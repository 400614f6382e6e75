"""Terms of filters against closed forms, naive loops and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressor.scoring.filter_terms import distinctness, diversity, live_shares, originality


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_cosines(filters: np.ndarray) -> np.ndarray:
    found = np.zeros((len(filters), len(filters)))
    for i, own in enumerate(filters):
        for j, other in enumerate(filters):
            lengths = np.linalg.norm(own) * np.linalg.norm(other)
            if i != j and lengths:
                found[i, j] = abs(own @ other) / lengths
    return found


def test_live_kernels_are_counted_beside_the_largest_weight_of_the_layer() -> None:
    kernels = torch.zeros(3, 4, 9)
    kernels[0, 0, 3] = -50.0  # the layer's peak: the threshold is 0.5
    kernels[0, 1] = 0.49
    kernels[1, 2, 0] = 0.51
    kernels[1, 3, 0] = -0.5001
    assert live_shares(kernels, epsilon=0.01).tolist() == [0.25, 0.5, 0.0]
    assert live_shares(kernels, epsilon=0.02).tolist() == [0.25, 0.0, 0.0]


def test_distinctness_is_one_minus_the_largest_cosine() -> None:
    filters = draw(9, 12)
    filters[3] = 0
    filters[7] = -0.5 * filters[2]
    cosines = naive_cosines(filters.numpy())
    found = distinctness(filters)
    np.testing.assert_allclose(found, 1 - cosines.max(axis=1), atol=1e-12)
    assert found[2] == pytest.approx(0, abs=1e-12) and found[7] == pytest.approx(0, abs=1e-12)
    assert found[3] == 1


def test_originality_looks_at_longer_filters_only() -> None:
    filters = draw(9, 5)
    filters[4] = 3 * filters[1]
    cosines, norms = naive_cosines(filters.numpy()), np.linalg.norm(filters.numpy(), axis=1)
    expected = [
        1 - max((cosines[i, j] for j in range(9) if norms[j] > norms[i]), default=0) for i in range(9)
    ]
    np.testing.assert_allclose(originality(filters), expected, atol=1e-12)
    shorter, longer = originality(filters)[[1, 4]].tolist()
    assert shorter == pytest.approx(0, abs=1e-12)
    assert longer > 0.01


def test_of_equal_filters_the_first_is_the_original() -> None:
    filters = torch.tensor([[0.0, 1.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    assert originality(filters).tolist() == [1, 1, 0, 0]
    assert distinctness(filters).tolist() == [1, 0, 0, 0]


def test_filters_are_compared_in_several_parts_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = draw(11, 6)
    whole = distinctness(filters), originality(filters)
    monkeypatch.setattr("compressor.scoring.filter_terms._PRODUCTS_AT_ONCE", 30)
    np.testing.assert_allclose(distinctness(filters), whole[0], atol=1e-14)
    np.testing.assert_allclose(originality(filters), whole[1], atol=1e-14)


@pytest.mark.parametrize("measure", [distinctness, originality])
def test_one_filter_or_one_number_has_nothing_to_be_compared_with(measure: object) -> None:
    assert callable(measure)
    assert measure(draw(1, 7)).tolist() == [1]
    assert measure(draw(4, 1)).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("count", "elements"), [(40, 9), (6, 9), (12, 3), (64, 27)])
def test_diversity_is_the_variance_entropy_by_singular_values(count: int, elements: int) -> None:
    kernels = draw(5, count, elements) * torch.arange(1, elements + 1)
    expected = []
    for own in kernels.numpy():
        variances = np.linalg.svd(own - own.mean(axis=0), compute_uv=False) ** 2
        shares = variances[variances > 1e-12] / variances.sum()
        expected.append(-(shares * np.log10(shares)).sum() / math.log10(min(count - 1, elements)))
    np.testing.assert_allclose(diversity(kernels), expected, atol=1e-9)


def test_diversity_at_its_ends() -> None:
    alike = draw(1, 1, 9).expand(1, 8, 9)
    axes = torch.eye(9, dtype=torch.float64).repeat(2, 1)
    axes[9:] *= -1
    assert diversity(torch.zeros(2, 8, 9)).tolist() == [0, 0]
    np.testing.assert_allclose(diversity(alike), 0, atol=1e-6)
    np.testing.assert_allclose(diversity(axes[None]), 1)
    assert diversity(draw(3, 2, 9)).tolist() == [
        1,
        1,
        1,
    ]  # two kernels vary along one axis, whatever they are
    assert diversity(draw(3, 8, 1)).tolist() == [1, 1, 1]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_all_terms_but_the_norm_are_shares(n: int, i: int, k: int, seed: int) -> None:
    kernels = draw(n, i, k, seed=seed)
    kernels[torch.rand(n, i, generator=torch.Generator().manual_seed(seed)) < 0.3] = 0
    for values in (
        live_shares(kernels, epsilon=0.05),
        distinctness(kernels.flatten(1)),
        originality(kernels.flatten(1)),
        diversity(kernels),
    ):
        assert values.shape == (n,) and values.dtype == torch.float64
        assert ((values >= 0) & (values <= 1)).all()


@given(st.integers(0, 99))
def test_terms_follow_their_filters_and_not_their_scale(seed: int) -> None:
    kernels = draw(6, 5, 9, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    for measure in (
        lambda x: live_shares(x, epsilon=0.1),
        lambda x: distinctness(x.flatten(1)),
        lambda x: originality(x.flatten(1)),
        diversity,
    ):
        np.testing.assert_allclose(measure(kernels[order]), measure(kernels)[order], atol=1e-12)
        np.testing.assert_allclose(measure(-1000 * kernels), measure(kernels), atol=1e-12)
