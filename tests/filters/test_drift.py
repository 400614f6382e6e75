from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from compressor.errors import InputError
from compressor.filters import Basis, FilterBank, data_limits, drift, pooled_basis
from tests.filters.test_divergence import by_scipy


def blurred(filters: int, channels: int = 16) -> torch.Tensor:
    """Kernels with neighbours alike, of another distribution than drawn ones."""
    return torch.randn(filters, channels, 3, 3).cumsum(-1)


def test_it_is_the_published_pipeline_of_scikit_learn_and_numpy() -> None:
    sides = torch.randn(500, 9), torch.randn(800, 9).cumsum(1)
    scaled = [(side / side.abs().amax(dim=1, keepdim=True)).double().numpy() for side in sides]
    pca = PCA(n_components=9, svd_solver="full").fit(np.concatenate(scaled))
    signs = np.sign((pca.components_ * pooled_basis(sides).components_KK.numpy()).sum(axis=1))
    transformed = [pca.transform(side) * signs for side in scaled]
    limits = min(map(np.min, transformed)), max(map(np.max, transformed))
    first, second = (
        np.stack([np.histogram(column, bins=70, range=limits)[0] for column in side.T])
        for side in transformed
    )
    expected = by_scipy(first, second, limits, pca.explained_variance_ratio_)
    basis = pooled_basis(sides)
    found = drift(*sides, basis=basis, limits=data_limits(sides, basis))
    # A kernel or two may lie on an edge, which the product of scikit-learn rounds otherwise.
    assert found.value == pytest.approx(expected, rel=1e-3)
    assert found.above_noise and found.counts == (500, 800)


def test_samples_of_one_distribution_are_within_noise() -> None:
    basis = Basis.of_kernels(torch.randn(2000, 9))
    found = [drift(torch.randn(16, 16, 3, 3), torch.randn(40, 16, 3, 3), basis=basis) for _ in range(20)]
    assert sum(one.above_noise for one in found) <= 1
    assert all(0.5 < one.value / one.noise.expected < 2 for one in found)
    assert drift(torch.randn(16, 16, 3, 3), blurred(40), basis=basis).above_noise


def test_zeros_written_by_pruning_drown_everything_unless_left_out() -> None:
    dense = torch.randn(64, 64, 3, 3)
    tuned = dense + 0.02 * torch.randn(64, 64, 3, 3)
    zeroed = tuned.clone().reshape(-1, 9)
    zeroed[torch.randperm(4096)[:1229]] = 0
    basis = Basis.of_kernels(dense.reshape(-1, 9))
    kept = drift(dense, zeroed, basis=basis, keep_zeros=True)
    left_out = drift(dense, zeroed, basis=basis)
    assert kept.value > 0.3 and kept.above_noise
    assert left_out.value < 0.05 and not left_out.above_noise
    assert left_out.zeros == (0, 1229) and left_out.counts == (4096, 2867)
    assert left_out.zero_shares == pytest.approx((0, 0.3), abs=1e-3)


def test_banks_are_pooled_as_their_kernels_are() -> None:
    weights = [torch.randn(8, 4, 3, 3), blurred(6)]
    banks = [FilterBank(weight, f"conv{place}") for place, weight in enumerate(weights)]
    matrix = torch.cat([bank.kernels for bank in banks])
    other = torch.randn(100, 9)
    basis = Basis.of_kernels(other)
    assert drift(banks, other, basis=basis).value == drift(matrix, other, basis=basis).value
    assert drift(other, iter(banks), basis=basis).value == drift(other, matrix, basis=basis).value
    pooled = pooled_basis([bank.kernels for bank in banks])
    torch.testing.assert_close(pooled.shares_K, Basis.of_kernels(matrix).shares_K)


@pytest.mark.parametrize("size", [(3,), (1, 3), (5, 5), (3, 3, 3)])
def test_kernels_of_any_size(size: tuple[int, ...]) -> None:
    found = drift(torch.randn(16, 16, *size), torch.randn(16, 16, *size).cumsum(-1))
    assert found.above_noise and found.limits[1] == pytest.approx(3.2 * math.sqrt(math.prod(size)) / 3)


def test_one_kernel_has_a_drift_in_a_given_basis_and_much_noise() -> None:
    basis = Basis.of_kernels(torch.randn(500, 9))
    found = drift(torch.randn(1, 1, 3, 3), torch.randn(64, 8, 3, 3), basis=basis)
    assert math.isfinite(found.value) and found.noise.expected > 5 and not found.above_noise


def test_scale_and_order_change_nothing() -> None:
    first, second = torch.randn(300, 9), blurred(20).reshape(-1, 9)
    basis = Basis.of_kernels(torch.cat([first, second]))
    found = drift(first, second, basis=basis).value
    powers = 2.0 ** torch.randint(-20, 20, (300, 1))
    assert drift((first * powers)[torch.randperm(300)], second, basis=basis).value == found


def test_a_drift_says_what_it_compares_with() -> None:
    basis = Basis.of_kernels(torch.randn(500, 9))
    found = drift(torch.randn(100, 9), torch.randn(100, 9), basis=basis, bins=30)
    assert (found.basis, found.bins, found.limits) == (basis.identity, 30, (-3.2, 3.2))
    assert "within noise" in repr(found)


def test_bad_input_is_refused() -> None:
    some = torch.randn(4, 4, 3, 3)
    with pytest.raises(InputError, match="9 and of 25 elements do not compare"):
        drift(some, torch.randn(4, 4, 5, 5))
    sizes = [FilterBank(some, "conv1"), FilterBank(torch.randn(4, 4, 1, 1), "conv2")]
    with pytest.raises(InputError, match=r"several sizes: 3 x 3 \(conv1\), 1 x 1 \(conv2\)"):
        drift(sizes, some)
    with pytest.raises(InputError, match="the second kernels: expected one bank at least"):
        drift(some, [])
    with pytest.raises(InputError, match=r"got Conv2d; banks\(model\) makes those"):
        drift(torch.nn.Conv2d(3, 3, 3), some)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a matrix"):
        drift(torch.randn(9), some)
    with pytest.raises(InputError, match="not empty"):
        drift(torch.empty(0, 9), some)
    with pytest.raises(InputError, match="matrix of the second kernels holds 1 value that is NaN"):
        drift(some, torch.tensor([[math.nan] + [0.0] * 8]))
    with pytest.raises(InputError, match="kernels on both sides"):
        drift(some, torch.zeros(4, 4, 3, 3))
    with pytest.raises(InputError, match="one shape have no principal axes"):
        drift(torch.ones(2, 2, 3, 3), 3 * torch.ones(2, 2, 3, 3))
    with pytest.raises(InputError, match="9 elements do not fit"):
        drift(some, some, basis=Basis.cosines((5, 5)))
