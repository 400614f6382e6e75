from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters import Phenotype, phenotype
from compressor.filters.scaling import scaled_kernels


def _coefficients(kernels_N9: Tensor) -> Tensor:
    """Along the two principal axes of the kernels themselves, scaled by their largest weight."""
    scaled = scaled_kernels(kernels_N9.double())
    centred = scaled - scaled.mean(dim=0)
    return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T


@pytest.mark.parametrize("n", [48, 256, 4096, 65536])
def test_random_kernels_are_a_sun_at_any_number(n: int) -> None:
    found = [phenotype(_coefficients(torch.randn(n, 9)), sparsity=0, entropy=0.95) for _ in range(20)]
    assert found.count(Phenotype.SUN) >= 19


@pytest.mark.parametrize("n", [256, 4096])
def test_two_heaps_are_symbols_and_few_shapes_are_spikes(n: int) -> None:
    heaps = torch.randn(n, 2) * 0.2 + torch.tensor([1.0, 0.0]) * torch.randint(0, 2, (n, 1)).mul(2).sub(1)
    assert phenotype(heaps, sparsity=0, entropy=0.7) is Phenotype.SYMBOLS
    assert phenotype(heaps, sparsity=0, entropy=0.3) is Phenotype.SPIKES


def test_a_lopsided_cloud_is_symbols() -> None:
    skewed = torch.stack([torch.rand(4096).log().neg(), torch.randn(4096)], dim=1)
    assert phenotype(skewed, sparsity=0, entropy=0.9) is Phenotype.SYMBOLS


def test_kernels_at_the_origin_are_a_point_however_many_shapes_the_others_have() -> None:
    points = torch.randn(1000, 2)
    points[:520] = 0.01
    assert phenotype(points, sparsity=0, entropy=0.9) is Phenotype.POINT
    assert phenotype(torch.randn(1000, 2), sparsity=0.51, entropy=0.9) is Phenotype.POINT


def test_kernels_without_variance_have_a_phenotype_too() -> None:
    assert phenotype(torch.ones(5, 2), sparsity=0, entropy=0.9) is Phenotype.SYMBOLS
    assert phenotype(torch.zeros(1, 2), sparsity=1, entropy=0) is Phenotype.POINT


@pytest.mark.parametrize("shape", [(0, 2), (5, 3), (5,)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"coefficients \[N, 2\]"):
        phenotype(torch.zeros(shape), sparsity=0, entropy=0.9)
