"""Shared kernels: the best there are by Eckart and Young, and how many the rules ask for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.design import ByEnergy, ByEntropy, kernel_basis, kernel_spectrum
from compressor.errors import InputError


def mixed(*size: int, rank: int, seed: int = 0) -> Tensor:
    """Kernels that are mixtures of `rank` shapes, in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.randn(rank, *size, generator=generator, dtype=torch.float64)
    mixing = torch.randn(6, 5, rank, generator=generator, dtype=torch.float64)
    weight: Tensor = torch.tensordot(mixing, shapes, dims=1)
    return weight


@pytest.mark.parametrize("size", [(9,), (3, 3), (4, 4), (2, 3, 2)])
def test_mixtures_of_k_shapes_are_exact(size: tuple[int, ...]) -> None:
    weight = mixed(*size, rank=3)
    basis = kernel_basis(weight, 3)
    torch.testing.assert_close(basis.weight, weight, rtol=1e-12, atol=1e-12)
    assert basis.energy_lost < 1e-24
    flat = basis.kernels.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_what_is_lost_are_the_singular_values_left_out() -> None:
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    values = np.linalg.svd(weight.double().reshape(32, 9).numpy(), compute_uv=False) ** 2
    np.testing.assert_allclose(kernel_spectrum(weight).numpy(), values, rtol=1e-10)
    for size in range(1, 10):
        expected = values[size:].sum() / values.sum()
        assert kernel_basis(weight, size).energy_lost == pytest.approx(expected, abs=1e-12)


def test_a_basis_may_be_larger_than_the_layer() -> None:
    weight = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    basis = kernel_basis(weight, 5)
    assert basis.kernels.shape == (5, 3, 3)
    torch.testing.assert_close(basis.weight, weight, rtol=1e-12, atol=1e-12)


def test_zeros_need_one_kernel_and_lose_nothing() -> None:
    zeros = torch.zeros(2, 3, 3, 3)
    assert ByEntropy()(zeros) == ByEnergy()(zeros) == 1
    assert kernel_basis(zeros, 1).energy_lost == 0
    assert torch.equal(kernel_basis(zeros, 1).weight, zeros.double())


def test_one_kernel_is_one_shape() -> None:
    kernel = torch.randn(1, 1, 3, 3)
    assert ByEntropy()(kernel) == ByEnergy()(kernel) == 1


def test_equal_kernels_are_one_shape() -> None:
    assert ByEntropy()(torch.full((40, 30, 3, 3), 0.1)) == 1


def test_the_number_of_shapes_is_ten_to_the_entropy() -> None:
    # Four directions of variance, 1/2 1/4 1/8 1/8: entropy 7/4 bits, 2^1.75 = 3.36 shapes.
    spread = torch.tensor([4.0, 2.0**1.5, 2.0, 2.0])
    rows = torch.cat([torch.diag(spread), -torch.diag(spread)]).reshape(8, 1, 2, 2)
    assert ByEntropy()(rows) == math.ceil(2**1.75) == 4
    rows = rows[[0, 1, 4, 5]]  # 2/3 and 1/3: 0.918 bits, 1.89 shapes
    assert ByEntropy()(rows) == 2


@pytest.mark.parametrize("size", [0, 10, True, 1.5])
def test_a_size_that_no_basis_has_is_refused(size: int) -> None:
    with pytest.raises(InputError, match="1 to 9 are expected"):
        kernel_basis(torch.randn(2, 2, 3, 3), size)


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        kernel_basis(torch.full((1, 1, 3, 3), float("nan")), 1)
