"""D against SciPy, and the noise floor against samples drawn from one distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import InputError
from compressor.filters import Basis, Histogram, divergence, noise_floor

LIMITS = (-3.2, 3.2)


def by_scipy(p: np.ndarray, q: np.ndarray, limits: tuple[float, float], shares: np.ndarray) -> float:
    """The published formula, component by component, with another library's KL."""
    width = (limits[1] - limits[0]) / p.shape[1]
    total = 0.0
    for share, some, others in zip(shares, p, q, strict=True):
        both = [counts / (counts.sum() * width) for counts in (some, others)]
        both = [np.where(density == 0, np.finfo(np.float32).eps, density) for density in both]
        one, two = (density / density.sum() for density in both)
        total += share * (scipy.special.rel_entr(one, two).sum() + scipy.special.rel_entr(two, one).sum())
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10_000), st.integers(1, 10**9), st.integers(2, 80))
def test_equal_counts_give_the_published_distance(seed: int, n: int, m: int, bins: int) -> None:
    draw = np.random.default_rng(seed)
    chances = draw.dirichlet(np.full(bins, 0.1), size=9)
    first, second = (np.stack([draw.multinomial(size, row) for row in chances]) for size in (n, m))
    basis = Basis(torch.zeros(9), torch.eye(9), torch.from_numpy(draw.dirichlet(np.ones(9))))
    p, q = (Histogram(torch.from_numpy(counts), LIMITS, basis.axes) for counts in (first, second))
    expected = by_scipy(first, second, LIMITS, basis.shares_K.numpy())
    assert divergence(p, q, basis) == pytest.approx(expected, abs=1e-12)
    assert divergence(p, q, basis) == pytest.approx(divergence(q, p, basis), abs=1e-13)
    assert divergence(p, p, basis) == 0


def test_distributions_without_a_common_bin_are_as_far_apart_as_can_be() -> None:
    counts = torch.zeros(9, 70, dtype=torch.int64)
    counts[:, 3] = 5
    basis = Basis.cosines((3, 3))
    p, q = (Histogram(part, LIMITS, basis.axes) for part in (counts, counts.flip(1)))
    width = 6.4 / 70
    assert divergence(p, q, basis) == pytest.approx(2 * np.log(1 / (2**-23 * width)), rel=1e-5)


@pytest.mark.parametrize(("n", "m"), [(64, 64), (100, 2000), (4096, 4096)])
def test_the_noise_floor_is_the_mean_of_samples_of_one_distribution(n: int, m: int) -> None:
    """Without bias for few kernels as well, where the approximation for many is wrong by half."""
    basis = Basis.of_kernels(torch.randn(4000, 9).cumsum(1))
    found, floors, above = [], [], 0
    for trial in range(60):
        p, q = (Histogram.of(torch.randn(size, 9).cumsum(1), basis) for size in (n, m))
        floor = noise_floor(p, q, basis, draws=20, seed=trial)
        found.append(divergence(p, q, basis))
        floors.append(floor.expected)
        above += found[-1] > floor.high
    error = np.std(found) / np.sqrt(len(found)) + np.std(floors) / np.sqrt(len(floors))
    assert np.mean(floors) == pytest.approx(np.mean(found), abs=3 * error)
    assert error < 0.1 * np.mean(found)  # or the line above says nothing
    assert above <= 3


@pytest.mark.parametrize(("n", "factor"), [(512, 0.31), (4096, 0.033), (36864, 0.0033), (262144, 0.0004)])
def test_the_noise_floor_in_the_published_basis(shared: Path, n: int, factor: float) -> None:
    """As measured elsewhere in the authors' basis: 69 (1/n + 1/m), more for few kernels."""
    with np.load(shared / "golden" / "filterdb_anchors.npz", allow_pickle=False) as golden:
        mean, components, shares = (
            torch.from_numpy(golden[f"cvpr22w_pca_full_{part}"])
            for part in ("mean", "components", "explained_variance_ratio")
        )
    basis = Basis(mean, components, shares)
    p, q = (Histogram.of(torch.randn(n, 9), basis) for _ in range(2))
    assert noise_floor(p, q, basis).expected == pytest.approx(factor, rel=0.1)
    assert divergence(p, q, basis) == pytest.approx(factor, rel=0.35)


def test_noise_of_many_kernels_follows_the_number_of_occupied_bins() -> None:
    """Σ (B_i − 1)(1/n + 1/m), also beyond the sizes of exact draws."""
    basis = Basis.cosines((3, 3))
    counts = torch.zeros(9, 70, dtype=torch.int64)
    counts[:, 20:40] = 10**6
    for times in (1, 10, 1000):
        p = Histogram(counts * times, LIMITS, basis.axes)
        expected = 19 * 2 / p.count
        assert noise_floor(p, p, basis).expected == pytest.approx(expected, rel=0.05)


def test_the_same_seed_gives_the_same_floor() -> None:
    basis = Basis.cosines((3, 3))
    p, q = (Histogram.of(torch.randn(300, 9), basis) for _ in range(2))
    assert noise_floor(p, q, basis, seed=3) == noise_floor(p, q, basis, seed=3)
    assert noise_floor(p, q, basis, seed=3) != noise_floor(p, q, basis, seed=4)


def test_bad_input_is_refused() -> None:
    basis, other = Basis.cosines((3, 3)), Basis.of_kernels(torch.randn(50, 9))
    p = Histogram.of(torch.randn(300, 9), basis)
    with pytest.raises(InputError, match="give the basis they were counted in"):
        divergence(p, p, other)
    with pytest.raises(InputError, match="kernels on both sides, got 300 and 0"):
        divergence(p, Histogram.of(torch.zeros(4, 9), basis), basis)
    with pytest.raises(InputError, match="not counted alike"):
        noise_floor(p, Histogram.of(torch.randn(5, 9), basis, bins=9), basis)
    with pytest.raises(InputError, match="2 draws or more"):
        noise_floor(p, p, basis, draws=1)
