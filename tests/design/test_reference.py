"""Kernels of a reference: which are drawn, how often, and their scale."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compressor.design import GaussianKernels, HistogramKernels, SampledKernels, initialise_, unit_kernels
from compressor.errors import InputError
from compressor.filters import Basis, FilterBank, Histogram, Moments


def bank(*shape: int, scale: float = 1.0, name: str = "bank") -> FilterBank:
    return FilterBank(scale * torch.randn(*shape), name)


def test_sampled_kernels_are_the_references_own_up_to_one_factor() -> None:
    reference = bank(4, 2, 3, 3)
    conv = nn.Conv2d(16, 8, 3)
    initialise_(conv, SampledKernels([reference]))
    kernels = conv.weight.detach().double().flatten(0, 1).flatten(1)
    own = reference.kernels.double()
    factor = math.sqrt(2 / 144) / float(own.square().mean().sqrt())
    apart = torch.cdist(kernels, factor * own)
    assert float(apart.min(dim=1).values.max()) < 1e-6
    counts = torch.bincount(apart.argmin(dim=1), minlength=8)
    assert int(counts.min()) > 0  # 128 draws of 8, with replacement


@pytest.mark.parametrize("how", ["sampled", "gaussian"])
@pytest.mark.parametrize("groups", [1, 4])
def test_the_mean_square_is_hes(how: str, groups: int) -> None:
    reference = FilterBank(0.3 * torch.randn(64, 16, 3, 3) + 0.1, "with a mean")
    chosen = (
        SampledKernels([reference]) if how == "sampled" else GaussianKernels(Moments.of(reference.kernels))
    )
    conv = nn.Conv2d(64, 128, 3, groups=groups)
    initialise_(conv, chosen)
    fan_in = 64 // groups * 9
    assert float(conv.weight.detach().square().mean()) == pytest.approx(2 / fan_in, rel=0.05)


def test_banks_of_other_scales_weigh_alike() -> None:
    pools = unit_kernels([bank(8, 4, 3, 3, scale=1e-3), bank(8, 4, 3, 3, scale=10.0), bank(2, 2, 5, 5)])
    assert pools[3, 3].shape == (64, 9) and pools[5, 5].shape == (4, 25)
    assert float(pools[3, 3][:32].square().mean()) == pytest.approx(1)
    assert float(pools[3, 3][32:].square().mean()) == pytest.approx(1)


def test_gaussian_kernels_have_the_moments() -> None:
    mixing = torch.randn(9, 9, dtype=torch.float64)
    rows = torch.randn(5000, 9, dtype=torch.float64) @ mixing + 2
    conv = nn.Conv2d(200, 200, 3).double()
    initialise_(conv, GaussianKernels(Moments.of(rows)))
    found = Moments.of(conv.weight.detach().flatten(0, 1).flatten(1))
    scale = math.sqrt(2 / 1800) / float(rows.square().mean().sqrt())
    expected = Moments.of(rows)
    torch.testing.assert_close(found.mean_K, scale * expected.mean_K, rtol=0.05, atol=1e-3 * scale)
    largest = float(expected.covariance.abs().max()) * scale**2
    torch.testing.assert_close(found.covariance, scale**2 * expected.covariance, rtol=0, atol=0.03 * largest)


def test_histogram_kernels_have_the_references_coefficients() -> None:
    mixing = torch.randn(9, 9, dtype=torch.float64)
    rows = torch.randn(20_000, 9, dtype=torch.float64) @ mixing + 0.5
    basis = Basis.of_kernels(rows)
    histogram = Histogram.of(rows, basis)
    conv = nn.Conv2d(150, 200, 3).double()
    initialise_(conv, HistogramKernels(histogram, basis))
    kernels = conv.weight.detach().flatten(0, 1).flatten(1)
    assert float(kernels.square().mean()) == pytest.approx(2 / 1350, rel=0.02)
    # Undo the one factor: what was drawn are scaled kernels.
    scaled = rows / rows.abs().amax(1, keepdim=True)
    kernels = kernels * float((scaled.square().mean() / kernels.square().mean()).sqrt())
    drawn = (kernels - basis.mean_K) @ basis.components_KK.T
    expected = basis.coefficients(rows)
    for component in range(9):
        both = torch.stack([torch.histc(c[:, component], 20, -3.2, 3.2) / len(c) for c in (drawn, expected)])
        assert float((both[0] - both[1]).abs().sum()) < 0.06  # of 2 where they had nothing in common
    torch.testing.assert_close(drawn.mean(0), expected.mean(0), atol=0.03, rtol=0)


def test_histograms_that_do_not_fit_are_refused() -> None:
    rows = torch.randn(50, 9)
    basis = Basis.of_kernels(rows)
    with pytest.raises(InputError, match="give the basis that the histogram was made in"):
        HistogramKernels(Histogram.of(rows, basis), Basis.cosines((3, 3)))
    with pytest.raises(InputError, match="counts no kernel"):
        HistogramKernels(Histogram.of(torch.zeros(4, 9), basis), basis)
    with pytest.raises(InputError, match="kernels of 5 x 5, the basis is of 9 weights"):
        initialise_(nn.Conv2d(3, 4, 5), HistogramKernels(Histogram.of(rows, basis), basis))


def test_kernels_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="Conv2d has kernels of 5 x 5, the reference of 3 x 3"):
        initialise_(nn.Conv2d(3, 4, 5), SampledKernels([bank(4, 2, 3, 3)]))
    with pytest.raises(InputError, match="Conv2d has kernels of 5 x 5, the moments are of 9 weights"):
        initialise_(nn.Conv2d(3, 4, 5), GaussianKernels(Moments.of(torch.randn(20, 9))))
    with pytest.raises(InputError, match="no extent"):
        initialise_(nn.Linear(3, 4), SampledKernels([bank(4, 2, 3, 3)]))


def test_references_without_anything_are_refused() -> None:
    with pytest.raises(InputError, match="no filter bank"):
        SampledKernels([])
    with pytest.raises(InputError, match=r"FilterBank\(dead: .* holds zeros only"):
        SampledKernels([FilterBank(torch.zeros(2, 2, 3, 3), "dead")])
    with pytest.raises(InputError, match="got a Conv2d"):
        SampledKernels([nn.Conv2d(2, 2, 3)])  # type: ignore[list-item]
    with pytest.raises(InputError, match="kernels of zeros"):
        initialise_(nn.Conv2d(2, 2, 3), GaussianKernels(Moments.of(torch.zeros(4, 9))))
    with pytest.raises(InputError, match="two rows or more"):
        initialise_(nn.Conv2d(2, 2, 3), GaussianKernels(Moments.none(9)))


def test_an_iterator_of_banks_is_read_once_for_all_layers() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    assert len(initialise_(net, SampledKernels(iter([bank(4, 2, 3, 3)])))) == 2
