"""Counting against a naive loop, for dimensions and orders that no real model needs to have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.profiling.counting import Dimensions, Polynomial, Term

N_UNITS = 9
units = st.lists(st.integers(-1, N_UNITS - 1), min_size=1, max_size=12)
dimensions = st.lists(units, min_size=1, max_size=6)
masks = st.lists(st.booleans(), min_size=N_UNITS, max_size=N_UNITS)


def naive_kept(dim: list[int], removed: list[bool]) -> int:
    return sum(1 for unit in dim if unit < 0 or not removed[unit])


@given(dimensions, masks)
def test_kept_lengths_equal_a_naive_count(dims: list[list[int]], removed: list[bool]) -> None:
    found, which = Dimensions.of([np.array(dim) for dim in dims])
    kept = found.kept(np.array(removed))
    assert [kept[i] for i in which] == [naive_kept(dim, removed) for dim in dims]


@given(dimensions)
def test_equal_dimensions_are_stored_once(dims: list[list[int]]) -> None:
    found, which = Dimensions.of([np.array(dim) for dim in [*dims, *dims]])
    assert len(found.sizes) == len({tuple(dim) for dim in dims})
    assert which[: len(dims)] == which[len(dims) :]


@given(dimensions, st.data())
def test_many_candidates_at_once_equal_one_mask_at_a_time(dims: list[list[int]], data: st.DataObject) -> None:
    # Three groups: one of two cells, one of one cell, one that reads its units backwards; unit 8 is
    # in no group, and units may occur in a dimension unequally often.
    order = [np.array([[0, 2], [1, 3]]), np.array([[4]]), np.array([[7, 6, 5]])]
    rows = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 3))
    candidates = data.draw(st.lists(rows, min_size=1, max_size=4))
    found, _ = Dimensions.of([np.array(dim) for dim in dims])
    batched = found.along(order).kept(np.array(candidates))
    for kept, lost in zip(batched, candidates, strict=True):
        removed = np.zeros(N_UNITS, dtype=bool)
        for cells, count in zip(order, lost, strict=True):
            removed[cells[:, :count]] = True
        assert kept.tolist() == found.kept(removed).tolist()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), dimensions, st.integers(1, 3)), max_size=4), masks)
def test_a_polynomial_equals_a_naive_sum_of_products(
    raw: list[tuple[int, list[list[int]], int]], removed: list[bool]
) -> None:
    terms = [Term("m", "t", factor, tuple(np.array(d) for d in dims), div) for factor, dims, div in raw]
    polynomial = Polynomial.of(terms)
    expected = []
    for factor, dims, divisor in raw:
        product = factor
        for dim in dims:
            product *= naive_kept(dim, removed)
        expected.append(product // divisor)
    found = polynomial.terms(polynomial.dims.kept(np.array(removed)))
    assert [int(value) for value in found] == expected


def test_numbers_beyond_64_bits_stay_exact() -> None:
    rows: npt.NDArray[np.int64] = np.arange(3)
    polynomial = Polynomial.of([Term("m", "t", 10**30 + 7, (rows, rows))])
    kept = polynomial.dims.kept(np.array([True, False, False]))
    assert int(polynomial.terms(kept)[0]) == (10**30 + 7) * 4


def test_a_polynomial_without_terms_is_zero() -> None:
    polynomial = Polynomial.of([])
    assert polynomial.terms(polynomial.dims.kept(np.zeros(3, dtype=bool))).sum() == 0
