from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from compressor.errors import InputError
from compressor.filters.moments import Moments
from compressor.filters.quality import (
    Population,
    effective_shapes,
    entropy_of_moments,
    entropy_of_spectrum,
    variance_entropy,
)

kernel_counts = st.integers(2, 40)
element_counts = st.integers(2, 12)
seeds = st.integers(0, 2**32 - 1)


def random_kernels(seed: int, n: int, elements: int) -> torch.Tensor:
    """Kernels with a spectrum that falls off, so that the entropy is not that of noise."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(elements, elements, generator=draw, dtype=torch.float64)
    return torch.randn(n, elements, generator=draw, dtype=torch.float64) @ mixing.tril() + 1


@settings(max_examples=30, deadline=None)
@given(seeds, kernel_counts, element_counts)
def test_it_is_the_entropy_of_sklearns_explained_variance(seed: int, n: int, elements: int) -> None:
    kernels = random_kernels(seed, n, elements)
    shares = PCA(svd_solver="full").fit(kernels.numpy()).explained_variance_ratio_
    assert variance_entropy(kernels) == pytest.approx(scipy.stats.entropy(shares, base=10), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seeds, kernel_counts, element_counts, st.sampled_from(Population))
def test_order_scale_and_sign_change_nothing(
    seed: int, n: int, elements: int, population: Population
) -> None:
    kernels = random_kernels(seed, n, elements)
    entropy = variance_entropy(kernels, population=population)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert variance_entropy(kernels[order], population=population) == pytest.approx(entropy, abs=1e-12)
    assert variance_entropy(kernels * -0.01, population=population) == pytest.approx(entropy, abs=1e-9)
    assert 0 <= entropy <= math.log10(elements) + 1e-12


def test_the_bounds_are_reached() -> None:
    crossed = torch.cat([torch.eye(9), -torch.eye(9)])
    assert variance_entropy(crossed) == pytest.approx(math.log10(9), abs=1e-12)
    assert effective_shapes(variance_entropy(crossed)) == pytest.approx(9)
    line = torch.arange(5.0)[:, None] * torch.randn(1, 9, dtype=torch.float64)
    assert variance_entropy(line) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("power", [-1000, -700, 700, 1022])
def test_the_ends_of_float64_are_within_reach(power: int) -> None:
    kernels = torch.randn(30, 9).clamp(-3, 3).double()
    kernels[0, 0] = 3.99
    scaled = torch.ldexp(kernels, torch.tensor(power))
    for population in Population:
        expected = variance_entropy(kernels, population=population)
        assert variance_entropy(scaled, population=population) == pytest.approx(expected, abs=1e-12)


def test_the_smallest_number_that_there_is() -> None:
    assert variance_entropy(torch.eye(3, dtype=torch.float64) * 5e-324) == pytest.approx(math.log10(2))


def test_moments_that_overflowed_are_refused() -> None:
    moments = Moments.of(torch.randn(5, 9, dtype=torch.float64) * 1e200)
    with pytest.raises(InputError, match="scatter of the kernels holds 81 values"):
        entropy_of_moments(moments)


def test_what_is_far_from_zero_loses_no_digits() -> None:
    kernels = random_kernels(1, 50, 9)
    assert variance_entropy(kernels + 1e6) == pytest.approx(variance_entropy(kernels), abs=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-20, -3e8])
@pytest.mark.parametrize("n", [1, 2, 1000, 100_000])
def test_equal_kernels_have_no_entropy_of_rounding(value: float, n: int) -> None:
    """The mean of a thousand times 0.1 is off by 1e-17; its square must not be taken for variance."""
    assert variance_entropy(torch.full((n, 9), value)) == 0
    parts = [Moments.of(torch.full((n, 9), value)) for _ in range(3)]
    assert entropy_of_moments(Moments.merged(parts, width=9)) == 0


def test_the_smallest_variance_of_float32_is_seen() -> None:
    kernels = torch.ones(4, 9)
    kernels[0, 0] += 2**-23
    kernels[1, 1] += 2**-23
    # The scatter is [[3, -1], [-1, 3]] / 4 of that step squared: variances of 1 and 1/2.
    assert variance_entropy(kernels) == pytest.approx(scipy.stats.entropy([2, 1], base=10))


def test_the_three_populations_by_numpy() -> None:
    kernels = random_kernels(3, 200, 9).float() * torch.logspace(0, -4, 200)[:, None]
    plain = kernels.numpy().astype(np.float64)
    peaks = np.abs(plain).max(axis=1)
    clean = plain[peaks >= 0.01 * peaks.max()]
    populations = {
        Population.RAW: plain,
        Population.CLEAN: clean,
        Population.SCALED_CLEAN: clean / np.abs(clean).max(axis=1, keepdims=True),
    }
    found = {}
    for population, expected in populations.items():
        squares = np.linalg.svd(expected - expected.mean(axis=0), compute_uv=False) ** 2
        found[population] = variance_entropy(kernels, population=population)
        assert found[population] == pytest.approx(scipy.stats.entropy(squares, base=10), abs=1e-7)
    assert len({round(value, 3) for value in found.values()}) == 3


@pytest.mark.parametrize("population", Population)
def test_a_layer_of_zeros_has_an_entropy_of_zero(population: Population) -> None:
    assert variance_entropy(torch.zeros(8, 9), population=population) == 0


def test_entropy_of_a_spectrum() -> None:
    spectrum = torch.tensor([1e-40, 5e-40, 0.0, 2e-40], dtype=torch.float64)
    assert entropy_of_spectrum(spectrum) == pytest.approx(scipy.stats.entropy([1, 5, 2], base=10))
    assert entropy_of_spectrum(torch.tensor([7.0])) == 0
    for bad in ([1.0, -0.1], [1.0, math.nan], [math.inf]):
        with pytest.raises(InputError, match="finite and not negative"):
            entropy_of_spectrum(torch.tensor(bad))


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        variance_entropy(torch.tensor([[1.0, math.nan], [0.0, 1.0]]))
