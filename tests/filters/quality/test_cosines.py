"""Orthogonality and duplicates against the whole matrix of cosines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from compressor.errors import InputError
from compressor.filters.quality import duplicates, orthogonality, published_orthogonality
from compressor.filters.quality.cosines import cosine_blocks, unit_filters


def weights(seed: int, filters: int, *, zero: int = 0, equal: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(filters, 2, 2, 2, generator=draw)
    order = torch.randperm(filters, generator=draw)
    weight[order[:zero]] = 0
    weight[order[filters - equal :]] = -2 * weight[order[filters - 1]].clone()
    return weight


def whole(weight: torch.Tensor) -> np.ndarray:
    cosines = cosine_similarity(weight.flatten(1).double().numpy())
    np.fill_diagonal(cosines, 0)
    return cosines


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 14), st.integers(0, 2), st.integers(1, 15))
def test_blocks_of_any_size_give_the_whole_matrix(seed: int, filters: int, zero: int, at_once: int) -> None:
    weight = weights(seed, filters, zero=zero)
    found = np.zeros((filters, filters))
    for block in cosine_blocks(unit_filters(weight), at_once=at_once):
        found[block.rows, block.columns] = block.cosines_AB
        found[block.columns, block.rows] = block.cosines_AB.T
    np.testing.assert_allclose(found, whole(weight), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 14), st.integers(0, 2))
def test_orthogonality_is_that_of_the_filters_that_are_not_zero(seed: int, filters: int, zero: int) -> None:
    weight = weights(seed, filters, zero=zero)
    alive = filters - zero
    expected = 1 - np.abs(whole(weight)).sum() / (alive * (alive - 1))
    assert orthogonality(weight) == pytest.approx(expected, abs=1e-12)
    assert orthogonality(weight * 1e-30) == pytest.approx(expected, abs=1e-7)
    theirs = np.abs(whole(weight)).sum() + zero
    assert published_orthogonality(weight) == pytest.approx(1 - theirs / (filters * (filters - 1)), abs=1e-12)


def test_orthogonality_at_its_bounds() -> None:
    rows, _ = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))
    assert orthogonality(rows.reshape(12, 3, 4)) == pytest.approx(1, abs=1e-14)
    assert orthogonality(
        torch.randn(1, 3, 3) * torch.tensor([1.0, -2.0, 3.0])[:, None, None]
    ) == pytest.approx(0)


@pytest.mark.parametrize(
    "weight", [torch.ones(1, 2, 3, 3), torch.zeros(4, 2, 3, 3), torch.eye(3)[:, :1, None]]
)
def test_orthogonality_without_a_pair_is_not_defined(weight: torch.Tensor) -> None:
    assert orthogonality(weight) is None
    assert published_orthogonality(torch.ones(1, 2, 3, 3)) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 14), st.integers(0, 2), st.floats(0.1, 1.0))
def test_duplicates_are_those_of_a_loop(seed: int, filters: int, zero: int, above: float) -> None:
    weight = weights(seed, filters, zero=zero, equal=2)
    cosines = whole(weight)
    expected = [
        (i, j) for i in range(filters) for j in range(i + 1, filters) if abs(cosines[i, j]) >= above - 1e-12
    ]
    found = duplicates(weight, above=above)
    assert found.count == len(expected)
    assert sorted(pair[:2] for pair in found.pairs) == expected
    for i, j, cosine in found.pairs:
        assert cosine == pytest.approx(cosines[i, j], abs=1e-12)
    sizes = [abs(cosine) for *_, cosine in found.pairs]
    assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_allclose(found.largest_O, np.abs(cosines).max(axis=1), atol=1e-12)
    for i, j in enumerate(found.nearest_O.tolist()):
        if j < 0:
            assert np.abs(cosines[i]).max() == 0
        else:
            assert abs(cosines[i, j]) == pytest.approx(np.abs(cosines[i]).max(), abs=1e-12)


def test_parallel_filters_are_found_at_a_bound_of_one() -> None:
    assert duplicates(torch.randn(1, 8, 3, 3).expand(5, 8, 3, 3), above=1.0).count == 10


def test_more_filters_than_a_block_holds() -> None:
    weight = torch.randn(2100, 1, 8)
    weight[2050] = -3 * weight[7]
    weight[1500] = 2 * weight[1501]
    found = duplicates(weight, above=0.9999, limit=1)
    cosines = whole(weight)
    assert found.count == (np.triu(np.abs(cosines), 1) >= 0.9999).sum() >= 2
    assert found.nearest_O[[7, 2050, 1500, 1501]].tolist() == [2050, 7, 1501, 1500]
    assert len(found.pairs) == 1
    assert orthogonality(weight) == pytest.approx(1 - np.abs(cosines).sum() / (2100 * 2099), abs=1e-12)


def test_filters_of_different_groups_are_no_duplicates() -> None:
    weight = torch.randn(1, 2, 3, 3).repeat(6, 1, 1, 1)
    assert duplicates(weight).count == 15
    assert duplicates(weight, groups=3).count == 3
    depthwise = duplicates(weight, groups=6)
    assert depthwise.count == 0 and depthwise.nearest_O.tolist() == [-1] * 6


def test_bad_input_is_refused() -> None:
    weight = torch.randn(4, 2, 3, 3)
    with pytest.raises(InputError, match=r"bound of \|cos\|"):
        duplicates(weight, above=0.0)
    with pytest.raises(InputError, match="do not make 3 groups"):
        duplicates(weight, groups=3)
    with pytest.raises(InputError, match="0 or more, got -1"):
        duplicates(weight, limit=-1)
    with pytest.raises(InputError, match="1 or more, got 0"):
        next(cosine_blocks(unit_filters(weight), at_once=0))
    with pytest.raises(InputError, match="NaN or infinite"):
        orthogonality(weight * math.inf)
    with pytest.raises(InputError, match="three dimensions or more"):
        orthogonality(torch.eye(3))
