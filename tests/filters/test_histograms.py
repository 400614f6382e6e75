from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import InputError
from compressor.filters import Basis, Histogram, data_limits, fixed_limits
from compressor.filters.histograms import _counts, coefficients_by_rule


@pytest.fixture
def kernels() -> torch.Tensor:
    return torch.randn(5000, 9) @ torch.randn(9, 9)


def test_counts_are_numpys_in_the_published_limits(kernels: torch.Tensor) -> None:
    basis = Basis.of_kernels(kernels)
    limits = data_limits([kernels[:100], kernels[100:]], basis)
    coefficients = coefficients_by_rule(kernels, basis).numpy()
    np.testing.assert_allclose(coefficients.T, basis.coefficients(kernels), atol=1e-13)
    assert limits == (coefficients.min(), coefficients.max())
    found = Histogram.of(kernels, basis, limits=limits)
    for row, counts in zip(coefficients, found.counts_KB.numpy(), strict=True):
        assert np.array_equal(np.histogram(row, bins=70, range=limits)[0], counts)
    assert found.count == 5000


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 90))
def test_values_on_and_beside_the_edges_fall_as_numpy_has_it(seed: int, bins: int) -> None:
    draw = np.random.default_rng(seed)
    low, high = sorted(draw.normal(size=2) * 10.0 ** draw.integers(-3, 4))
    edges = np.linspace(low, high, bins + 1)
    values = np.concatenate([edges, np.nextafter(edges[1:], low), np.nextafter(edges[:-1], high)])
    found = _counts(torch.from_numpy(values)[None], (low, high), bins)
    assert np.array_equal(found[0].numpy(), np.histogram(values, bins=bins, range=(low, high))[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 400), min_size=1, max_size=5))
def test_counts_depend_on_no_chunks(seed: int, sizes: list[int]) -> None:
    draw = torch.Generator().manual_seed(seed)
    kernels = torch.randn(sum(sizes), 9, generator=draw)
    kernels[::7] = kernels[::7].round()  # coefficients that many share, exact zeros among them
    basis = Basis.of_kernels(torch.randn(50, 9, generator=draw))
    parts = [Histogram.of(part, basis) for part in kernels.split(sizes)]
    merged = parts[-1]
    for part in parts[:-1]:
        merged = merged.merge(part)
    whole = Histogram.of(kernels, basis)
    assert torch.equal(merged.counts_KB, whole.counts_KB) and merged.zeros == whole.zeros
    assert torch.equal(Histogram.of(kernels.flip(0), basis).counts_KB, whole.counts_KB)


def test_zeros_are_apart_unless_kept(kernels: torch.Tensor) -> None:
    basis = Basis.of_kernels(kernels)
    pruned = kernels.clone()
    pruned[:1000] = 0
    without, kept = Histogram.of(pruned, basis), Histogram.of(pruned, basis, keep_zeros=True)
    assert (without.count, without.zeros, kept.count, kept.zeros) == (4000, 1000, 5000, 0)
    assert torch.equal(without.counts_KB, Histogram.of(kernels[1000:], basis).counts_KB)
    assert (kept.counts_KB - without.counts_KB).max(dim=1).values.tolist() == [1000] * 9  # one bin each


@pytest.mark.parametrize("size", [(2,), (3, 3), (5, 5), (3, 3, 3)])
def test_the_fixed_limits_hold_for_any_kernels_and_mean(size: tuple[int, ...]) -> None:
    width = math.prod(size)
    for shift in (0.0, 0.5, 50.0):
        signs = torch.randn(200, width).sign()
        kernels = torch.cat([signs, torch.rand(50, width) + shift])
        for basis in (Basis.of_kernels(kernels), Basis.cosines(size)):
            assert Histogram.of(kernels, basis).count == 250
    assert fixed_limits(Basis.cosines((3, 3))) == (-3.2, 3.2)


def test_no_kernels_have_an_empty_histogram() -> None:
    basis = Basis.cosines((3, 3))
    empty = Histogram.of(torch.empty(0, 9), basis)
    assert empty.count == 0 and empty.merge(Histogram.of(torch.randn(3, 9), basis)).count == 3
    assert Histogram.of(torch.zeros(4, 9), basis).zeros == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(kernels: torch.Tensor, dtype: torch.dtype) -> None:
    basis = Basis.of_kernels(kernels)
    assert Histogram.of(kernels.to(dtype), basis).count == 5000


def test_bad_input_is_refused(kernels: torch.Tensor) -> None:
    basis, other = Basis.of_kernels(kernels), Basis.cosines((3, 3))
    found = Histogram.of(kernels, basis)
    with pytest.raises(InputError, match="axes of basis"):
        found.merge(Histogram.of(kernels, other))
    with pytest.raises(InputError, match=r"shape \(9, 70\) and \(9, 60\)"):
        found.merge(Histogram.of(kernels, basis, bins=60))
    with pytest.raises(InputError, match="outside the limits"):
        Histogram.of(kernels, basis, limits=(-1.0, 1.0))
    with pytest.raises(InputError, match="18 values that are NaN"):
        Histogram.of(torch.full((2, 9), math.nan), basis)
    with pytest.raises(InputError, match="lower one first"):
        Histogram.of(kernels, basis, limits=(1.0, -1.0))
    with pytest.raises(InputError, match="2 bins or more"):
        Histogram.of(kernels, basis, bins=1)
    with pytest.raises(InputError, match="25 elements do not fit"):
        Histogram.of(torch.randn(3, 25), basis)
    with pytest.raises(InputError, match="no kernels, or one shape only"):
        data_limits([torch.zeros(3, 9)], basis)
    with pytest.raises(InputError, match="as many kernels in each row"):
        Histogram(torch.tensor([[1, 2], [1, 1]]), (-1.0, 1.0), "x")
    with pytest.raises(InputError, match="0 or more"):
        Histogram(torch.tensor([[-1, 2], [1, 0]]), (-1.0, 1.0), "x")
