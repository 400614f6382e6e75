from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import InputError
from compressor.filters import Moments


def rows(seed: int, count: int, width: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) * 3 + 100


def agree(left: Moments, right: Moments) -> None:
    assert left.count == right.count
    torch.testing.assert_close(left.mean_K, right.mean_K, rtol=1e-13, atol=0)
    torch.testing.assert_close(left.scatter_KK, right.scatter_KK, rtol=1e-11, atol=1e-9)


def test_they_are_numpys() -> None:
    some = rows(0, 1000)
    moments = Moments.of(some, at_once=64)
    np.testing.assert_allclose(moments.mean_K, some.numpy().mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(some.numpy(), rowvar=False), rtol=1e-11)
    values = np.linalg.svd(some.numpy() - some.numpy().mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(moments.spectrum, values**2, rtol=1e-11)


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 20), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_parts_merge_in_any_order(counts: list[int], seed: int) -> None:
    parts = [rows(seed + i, count) for i, count in enumerate(counts)]
    whole = Moments.of(torch.cat(parts))
    agree(Moments.merged(map(Moments.of, parts), width=4), whole)
    agree(Moments.merged(map(Moments.of, reversed(parts)), width=4), whole)


def test_half_precision_is_measured_in_double() -> None:
    some = rows(1, 500).to(torch.bfloat16)
    agree(Moments.of(some), Moments.of(some.double()))


def test_constant_rows_have_no_spectrum() -> None:
    assert Moments.of(torch.full((100, 3), 0.1)).spectrum.max() < 1e-25


def test_one_row_has_no_covariance() -> None:
    with pytest.raises(InputError, match="two rows or more, got 1"):
        _ = Moments.of(torch.ones(1, 3)).covariance


def test_rows_of_other_lengths_do_not_merge() -> None:
    with pytest.raises(InputError, match="rows of 3 and of 4"):
        Moments.none(3).merge(Moments.none(4))


def test_moments_are_of_a_matrix() -> None:
    with pytest.raises(InputError, match=r"got \[2, 3, 3\]"):
        Moments.of(torch.zeros(2, 3, 3))
