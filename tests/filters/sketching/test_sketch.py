"""Sketches are a commutative monoid, and say what the kernels would."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import InputError
from compressor.filters import FilterBank
from compressor.filters.basis import Basis
from compressor.filters.drift import drift, pooled_basis
from compressor.filters.histograms import Histogram
from compressor.filters.quality import EPSILONS, Comparison, Population, quality, sparsity, variance_entropy
from compressor.filters.scaling import scaled_kernels
from compressor.filters.sketching import Sketch, SketchSetting, sketch
from compressor.filters.sketching.measured import quality_of_sketch
from tests.filters.sketching.synthetic import basis_of, kernels_of, setting_of
from tests.filters.sketching.test_tally import assert_close, assert_same_counts

SETTING = setting_of()
MOMENTS = ("raw", "clean", "scaled", "scaled_clean")


def bank_of(seed: int, filters: int = 8, channels: int = 4) -> FilterBank:
    weight = kernels_of(seed, filters * channels).reshape(filters, channels, 3, 3)
    return FilterBank(weight, f"conv{seed}", model="model", layer_id=seed)


def sketch_of(seed: int) -> Sketch:
    return sketch(bank_of(seed, filters=1 + seed % 5, channels=3), SETTING)


def assert_same(one: Sketch, other: Sketch) -> None:
    assert_same_counts(one, other)
    assert one.layers == other.layers and one.filters == other.filters
    for name in MOMENTS:
        if one.count > 1 or name == "raw":
            first, second = getattr(one, name), getattr(other, name)
            assert first.count == second.count
            torch.testing.assert_close(first.mean_K, second.mean_K, rtol=0, atol=1e-12)
            torch.testing.assert_close(first.scatter_KK, second.scatter_KK, rtol=0, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=7), st.randoms(use_true_random=False))
def test_merging_is_associative_and_commutative(seeds: list[int], random) -> None:
    parts = [sketch_of(seed) for seed in seeds]
    in_order = Sketch.merged(parts, setting=SETTING)
    random.shuffle(parts)
    while len(parts) > 1:  # a random tree of the shuffled parts
        at = random.randrange(len(parts) - 1)
        parts[at : at + 2] = [parts[at].merge(parts[at + 1])]
    assert_same(in_order, parts[0])


def test_no_kernels_are_neutral() -> None:
    made, nothing = sketch_of(3), Sketch.none(SETTING)
    assert_same(made.merge(nothing), made)
    assert_same(nothing.merge(made), made)
    assert nothing.merge(nothing).count == 0


def test_merged_sketches_are_those_of_all_kernels() -> None:
    # Layers of one peak, so that the same kernels are sparse together and apart.
    weights = [bank_of(seed).weight.clone() for seed in range(4)]
    for weight in weights:
        weight[0, 0, 0, 0] = 50.0
    apart = reduce(Sketch.merge, [sketch(FilterBank(weight, "conv"), SETTING) for weight in weights])
    together = sketch(FilterBank(torch.cat(weights), "conv"), SETTING)
    assert torch.equal(apart.sparse_2E, together.sparse_2E) and torch.equal(
        apart.counts_KB, together.counts_KB
    )
    for name in MOMENTS:
        assert_close(getattr(apart, name), getattr(together, name))


def test_it_says_what_the_kernels_say() -> None:
    bank = bank_of(7, filters=64, channels=32)
    made = sketch(bank, SETTING)
    for epsilon in EPSILONS:
        for how in Comparison:
            expected = sparsity(bank.kernels, epsilon=epsilon, comparison=how)
            assert made.sparsity(epsilon, comparison=how) == expected
    for population in Population:
        expected = variance_entropy(bank.kernels, population=population)
        assert made.entropy(population) == pytest.approx(expected, abs=1e-12)
    measured, expected_all = quality_of_sketch(made, bank.name, kernel_size=(3, 3)), quality(bank)
    assert measured.dead_filters == len(expected_all.dead_filters) > 0
    assert measured.dead_channels == len(expected_all.dead_channels)
    assert measured.verdicts == expected_all.verdicts
    assert measured.sparsities == expected_all.sparsities and measured.sparsity == expected_all.sparsity
    assert measured.entropy_ratio == pytest.approx(expected_all.entropy_ratio, abs=1e-12)


def test_the_clean_kernels_follow_the_settings_comparison() -> None:
    kernels = torch.zeros(4, 9)
    kernels[:, 0] = torch.tensor([1.0, 0.01, 0.5, 0.001])
    bank = FilterBank(kernels.reshape(2, 2, 3, 3), "conv")
    for how, count in ((Comparison.BELOW, 3), (Comparison.AT_MOST, 2)):
        assert sketch(bank, SketchSetting(basis_of(), comparison=how)).clean.count == count


def test_exact_zeros_can_be_left_out_of_coefficients_and_moments() -> None:
    kernels = kernels_of(1)
    kernels[::3] = 0
    made = sketch(FilterBank(kernels.reshape(64, 32, 3, 3), "conv"), SETTING)
    left = kernels[kernels.abs().amax(dim=1) > 0]
    assert made.zeros == len(kernels) - len(left)
    moments, expected = made.scaled_without_zeros(), scaled_kernels(left).double()
    assert moments.count == len(left)
    torch.testing.assert_close(moments.mean_K, expected.mean(dim=0))
    torch.testing.assert_close(moments.covariance, expected.T.cov())


@pytest.mark.parametrize("keep_zeros", [False, True])
def test_its_histogram_is_that_of_the_kernels(keep_zeros: bool) -> None:
    kernels = kernels_of(1)
    kernels[::3] = 0
    histogram = sketch(FilterBank(kernels.reshape(64, 32, 3, 3), "conv"), SETTING).histogram(
        keep_zeros=keep_zeros
    )
    expected = Histogram.of(kernels, SETTING.basis, keep_zeros=keep_zeros)
    histogram.require_like(expected)
    assert torch.equal(histogram.counts_KB, expected.counts_KB) and histogram.zeros == expected.zeros


def test_distances_are_those_of_the_kernels() -> None:
    some, others = kernels_of(1), kernels_of(2, count=5000) + 0.05
    made = [
        sketch(FilterBank(kernels[:, None].unflatten(2, (3, 3)), "conv"), SETTING)
        for kernels in (some, others)
    ]
    expected = drift(some, others, basis=SETTING.basis)
    assert made[0].drift(made[1]) == expected and expected.value > 0.1
    # The same axes with other shares: those of the data, once they are known.
    basis = SETTING.basis.with_shares_of(made[0].merge(made[1]).scaled)
    assert made[0].drift(made[1], basis=basis) == drift(some, others, basis=basis) != expected
    with pytest.raises(InputError, match="do not merge or compare"):
        made[0].drift(Sketch.none(setting_of(seed=1)))


def test_the_basis_of_merged_sketches_is_that_of_all_kernels() -> None:
    some, others = kernels_of(1), kernels_of(2)
    made = [sketch(FilterBank(kernels.reshape(64, 32, 3, 3), "conv"), SETTING) for kernels in (some, others)]
    both = made[0].merge(made[1])
    for basis, expected in (
        (both.basis(keep_zeros=True), Basis.of_kernels(torch.cat([some, others]))),
        (both.basis(), pooled_basis([some, others])),
    ):
        assert basis.count == expected.count
        torch.testing.assert_close(basis.components_KK, expected.components_KK, rtol=0, atol=1e-8)
        torch.testing.assert_close(basis.shares_K, expected.shares_K, rtol=0, atol=1e-12)
        torch.testing.assert_close(basis.mean_K, expected.mean_K, rtol=0, atol=1e-12)


def test_sketches_made_differently_do_not_merge() -> None:
    bank = bank_of(0)
    for other, difference in (
        (setting_of(seed=1), "basis: "),
        (SketchSetting(basis_of(), bins=80), "bins: 70 and 80"),
        (SketchSetting(basis_of(), limit=4.0), "limit: 3.2 and 4.0"),
        (SketchSetting(basis_of(), epsilons=(0.01,)), "epsilons: "),
        (SketchSetting(basis_of(), epsilon=0.02), "epsilon of clean kernels: 0.01 and 0.02"),
        (SketchSetting(basis_of(), comparison=Comparison.AT_MOST), "comparison of clean kernels: < and <="),
    ):
        with pytest.raises(InputError, match="made differently do not merge or compare; " + difference):
            sketch(bank, SETTING).merge(sketch(bank, other))
    with pytest.raises(InputError, match="elements of a kernel: 9 and 4"):
        Sketch.none(SETTING).merge(Sketch.none(setting_of(4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 3.0}, "reach ±3.03, beyond the bins, which end at ±3"),
        ({"limit": float("inf")}, "beyond the bins"),
        ({"bins": 1}, "bins must be 2 or more, got 1"),
        ({"epsilons": ()}, "thresholds lie between 0 and 1"),
        ({"epsilons": (0.01, 1.5)}, "thresholds lie between 0 and 1"),
        ({"epsilon": 0.0}, "0.0 for the clean kernels"),
    ],
)
def test_settings_without_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SketchSetting(basis_of(), **options)


def test_what_was_not_counted_is_not_answered() -> None:
    with pytest.raises(InputError, match=r"not for 0.03: choose one of them"):
        sketch_of(1).sparsity(0.03)
    with pytest.raises(InputError, match="a sketch of no kernels has not an entropy"):
        Sketch.none(SETTING).entropy()


def test_kernels_of_another_size_than_the_basis_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"stem: expected kernels \[N, 9\] of torch.float32, got \[4, 25\]"):
        sketch(FilterBank(torch.randn(2, 2, 5, 5), "stem"), SETTING)
