"""Everything counted of one layer, in any chunks, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.moments import Moments
from compressor.filters.quality.dead import dead_channels, dead_filters
from compressor.filters.quality.sparsity import Comparison, sparse_kernels
from compressor.filters.scaling import scaled_kernels
from compressor.filters.sketching import Sketch
from compressor.filters.sketching.tally import Peak, Tally
from tests.filters.sketching.synthetic import kernels_of, setting_of


def tallied(
    kernels: Tensor, *, at_once: int | None = None, shape=None, width: int = 9, groups: int = 1
) -> Sketch:
    peak = Peak("layer")
    chunks = kernels.split(at_once or len(kernels))
    for chunk in chunks:
        peak.add(chunk)
    tally = Tally(setting_of(width), peak.value, named="layer", shape=shape, groups=groups)
    for chunk in chunks:
        tally.add(chunk)
    return tally.sketch()


def assert_same_counts(one: Sketch, other: Sketch) -> None:
    assert (one.count, one.zeros, one.peak) == (other.count, other.zeros, other.peak)
    assert torch.equal(one.sparse_2E, other.sparse_2E)
    assert torch.equal(one.counts_KB, other.counts_KB)
    assert (one.dead_filters, one.dead_channels) == (other.dead_filters, other.dead_channels)


def assert_close(one: Moments, other: Moments, *, tolerance: float = 1e-10) -> None:
    assert one.count == other.count
    torch.testing.assert_close(one.mean_K, other.mean_K, rtol=0, atol=tolerance)
    torch.testing.assert_close(one.covariance, other.covariance, rtol=0, atol=tolerance)


@pytest.mark.parametrize("at_once", [1, 7, 1000, 8192, 9000])
def test_counts_are_the_same_in_any_chunks(at_once: int) -> None:
    kernels = kernels_of(3, count=64 * 32 * (5 if at_once > 1 else 1))
    shape = (64, len(kernels) // 64)
    whole, cut = tallied(kernels, shape=shape), tallied(kernels, at_once=at_once, shape=shape)
    assert_same_counts(whole, cut)
    for name in ("raw", "clean", "scaled", "scaled_clean"):
        assert_close(getattr(whole, name), getattr(cut, name))


@pytest.mark.slow
def test_ten_million_kernels_give_the_same_counts_in_every_chunking() -> None:
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(10_000_000, 9, generator=generator)
    kernels[::5] *= 1e-2
    made = [
        tallied(kernels, at_once=at_once, shape=(10_000, 1000))
        for at_once in (10_000_000, 999_983, 65_536, 4_099)
    ]
    for other in made[1:]:
        assert_same_counts(made[0], other)
        for name in ("raw", "clean", "scaled", "scaled_clean"):
            assert_close(getattr(made[0], name), getattr(other, name))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_sparse_kernels_are_those_of_the_metric(dtype: torch.dtype) -> None:
    kernels = kernels_of(5).to(dtype)
    made = tallied(kernels)
    for row, how in enumerate(Comparison):
        for column, epsilon in enumerate(made.setting.epsilons):
            sparse = sparse_kernels(kernels, epsilon=epsilon, comparison=how)
            assert int(made.sparse_2E[row, column]) == int(sparse.sum())


def test_a_kernel_on_the_threshold_is_told_by_the_comparison() -> None:
    kernels = torch.zeros(4, 9)
    kernels[:, 0] = torch.tensor([1.0, 0.01, 0.5, 0.001])
    made = tallied(kernels)
    column = made.setting.epsilons.index(0.01)
    assert made.sparse_2E[:, column].tolist() == [1, 2]


def test_moments_are_those_of_numpy() -> None:
    kernels = kernels_of(9)
    made = tallied(kernels)
    sparse = sparse_kernels(kernels)
    scaled = scaled_kernels(kernels).double().numpy()
    for moments, rows in (
        (made.raw, kernels.double().numpy()),
        (made.clean, kernels.double().numpy()[~sparse]),
        (made.scaled, scaled),
        (made.scaled_clean, scaled[~sparse]),
    ):
        assert moments.count == len(rows)
        np.testing.assert_allclose(moments.mean_K, rows.mean(axis=0), atol=1e-14)
        np.testing.assert_allclose(moments.covariance, np.cov(rows, rowvar=False), atol=1e-13)


def test_counts_are_a_histogram_of_the_coefficients() -> None:
    kernels = kernels_of(2)
    made = tallied(kernels)
    basis = made.setting.basis
    coefficients = (scaled_kernels(kernels).double() - basis.mean_K) @ basis.components_KK.double().T
    for row, values in zip(made.counts_KB, coefficients.T.numpy(), strict=True):
        assert row.tolist() == np.histogram(values, 70, (-3.2, 3.2))[0].tolist()


def test_dead_filters_and_channels_are_counted_by_group() -> None:
    weight = torch.ones(4, 2, 3, 3)
    weight[1] = 1e-3  # a filter
    weight[2:, 1] = 1e-3  # channel 3: the second group's second
    made = tallied(weight.flatten(0, 1).flatten(1), shape=(4, 2), groups=2)
    assert (made.filters, made.dead_filters, made.channels, made.dead_channels) == (4, 1, 4, 1)
    assert tallied(weight.flatten(0, 1).flatten(1)).filters == 0


def test_dead_filters_and_channels_are_those_of_the_metric_in_any_chunks() -> None:
    generator = torch.Generator().manual_seed(0)
    for filters, inputs, groups in ((64, 1, 64), (12, 7, 3), (5, 300, 1), (1, 9000, 1), (40, 256, 2)):
        weight = torch.randn(filters, inputs, 3, 3, generator=generator)
        weight[:: 1 + filters // 8] *= 1e-3
        weight[:, :: 1 + inputs // 4] *= 1e-3
        kernels = weight.flatten(0, 1).flatten(1)
        for at_once in (None, 10, 8192):
            made = tallied(kernels, at_once=at_once, shape=(filters, inputs), groups=groups)
            assert made.dead_filters == int(dead_filters(weight).sum())
            assert made.dead_channels == int(dead_channels(weight, groups=groups).sum())
            assert made.channels == inputs * groups and made.filters == filters


def test_a_layer_of_zeros_is_sparse_and_has_no_variance() -> None:
    made = tallied(torch.zeros(12, 9), shape=(3, 4))
    assert made.zeros == 12 and made.peak == 0
    assert (made.sparse_2E == 12).all()
    assert made.clean.count == 0 and made.entropy() == 0
    assert made.counts_KB.sum(dim=1).tolist() == [12] * 9
    assert (made.dead_filters, made.dead_channels) == (3, 4)
    assert made.histogram().count == 0 and made.histogram().zeros == 12


def test_equal_kernels_have_no_variance_at_all() -> None:
    made = tallied(torch.full((40_000, 9), 0.1), at_once=999)
    assert float(made.raw.scatter_KK.abs().max()) == 0 and made.entropy() == 0


def test_one_kernel_has_a_sketch() -> None:
    made = tallied(torch.arange(9.0)[None])
    assert made.count == 1 and made.entropy() == 0 and made.sparsity() == 0


def test_other_sizes_of_kernels_have_sketches() -> None:
    for width in (1, 5, 25, 27):
        made = tallied(torch.randn(100, width), width=width)
        assert made.counts_KB.sum(dim=1).tolist() == [100] * width


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        (torch.full((2, 9), torch.nan), "layer holds 18 values that are NaN or infinite"),
        (torch.full((2, 9), torch.inf), "NaN or infinite, first at"),
        (torch.empty(0, 9), "layer has no kernels"),
        (torch.ones(2, 3, 3), "expected kernels .N, K. of a floating type"),
        (torch.ones(2, 9, dtype=torch.int32), "expected kernels .N, K. of a floating type"),
    ],
)
def test_bad_kernels_are_refused_by_name(kernels: Tensor, message: str) -> None:
    peak = Peak("layer")
    with pytest.raises(InputError, match=message):
        peak.add(kernels)
        _ = peak.value


def test_chunks_of_another_kind_are_refused() -> None:
    tally = Tally(setting_of(), torch.tensor(1.0), named="layer")
    with pytest.raises(InputError, match=r"expected kernels \[N, 9\] of torch.float32, got \[2, 4\]"):
        tally.add(torch.ones(2, 4))
    with pytest.raises(InputError, match=r"got \[2, 9\] of torch.float64"):
        tally.add(torch.ones(2, 9).double())


def test_a_wrong_peak_or_shape_is_found_out() -> None:
    tally = Tally(setting_of(), torch.tensor(2.0), named="layer")
    tally.add(torch.ones(2, 9))
    with pytest.raises(InputError, match=r"layer: its largest .weight. was said to be 2.0 and is 1.0"):
        tally.sketch()
    for count in (5, 7, 12):
        tally = Tally(setting_of(), torch.tensor(1.0), named="layer", shape=(2, 3))
        for chunk in torch.ones(count, 9).split(4):
            tally.add(chunk)
        with pytest.raises(InputError, match=f"layer: {count} kernels are not the 2 x 3 of its shape"):
            tally.sketch()
    tally = Tally(setting_of(), torch.tensor(1.0), named="layer")
    with pytest.raises(InputError, match="is nan: the kernels"):
        tally.add(torch.full((2, 9), torch.nan))


def test_the_kernels_are_left_as_they_are() -> None:
    kernels = kernels_of(0)
    before = kernels.clone()
    tallied(kernels)
    assert torch.equal(kernels, before)
