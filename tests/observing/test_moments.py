"""Moments against NumPy in float64, however the data comes in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressor.observing.moments import Moments, balanced_moments, moments_of


def merged(parts: list[Moments]) -> Moments:
    total = parts[0]
    for part in parts[1:]:
        total = total.merged(part)
    return total


def assert_same(found: Moments, expected: Moments, rtol: float = 1e-5) -> None:
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=rtol, atol=1e-6)
    np.testing.assert_allclose(found.m2, expected.m2, rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("dims", [(0,), (0, 2), (0, 3), (1,), (0, 1, 2, 3)])
@pytest.mark.parametrize("layout", ["plain", "channels_last", "sliced"])
def test_moments_over_any_dimensions(dims: tuple[int, ...], layout: str) -> None:
    values = torch.randn(5, 3, 4, 6) * 2 + 50
    if layout == "channels_last":
        values = values.to(memory_format=torch.channels_last)
    if layout == "sliced":
        values = values[::2, :, 1:, ::2]
    found, exact = moments_of(values, dims), values.numpy().astype(np.float64)
    assert found.mean.dtype == found.m2.dtype == torch.float64
    np.testing.assert_allclose(found.mean, exact.mean(dims), rtol=1e-6)
    np.testing.assert_allclose(found.variance, exact.var(dims), rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([0.0, 1.0, 1e3]), st.randoms())
def test_parts_in_any_order_make_the_whole(sizes: list[int], offset: float, random: object) -> None:
    values = torch.randn(sum(sizes), 2, 3) + offset
    parts = [moments_of(part, (0,)) for part in values.split(sizes)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    exact = values.numpy().astype(np.float64)
    found = merged(parts)
    assert found.count == len(values)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.variance, exact.var(0), rtol=1e-4, atol=1e-12 + 1e-13 * offset**2)


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((5, 3, 300, 400), (0,)),
        ((5, 3, 300, 400), (0, 1)),
        ((700, 1, 8, 20, 20), (0, 2)),
        ((3_000_001,), (0,)),
        ((3, 1_500_000), (1,)),
    ],
)
def test_what_is_larger_than_a_piece_is_put_together(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    values = torch.randn(shape) + 3
    found, exact = moments_of(values, dims), values.numpy().astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(dims), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.variance, exact.var(dims), rtol=1e-5)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    """E[x²] - E[x]² in float32 would be 0, or negative."""
    values = torch.randn(1000, 3, dtype=torch.float64) * 0.125 + 4096
    values = values.float()
    found = merged([moments_of(part, (0,)) for part in values.split(100)])
    np.testing.assert_allclose(found.variance, values.numpy().astype(np.float64).var(0), rtol=1e-4)


@pytest.mark.parametrize("value", [0.1, 1e6, -3.3])
def test_what_is_constant_has_no_variance_at_all(value: float) -> None:
    parts = [moments_of(torch.full((n, 4), value), (0,)) for n in (3, 1, 64)]
    assert not merged(parts).variance.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    values = (torch.randn(300, 4) * 200 + 300).to(dtype)
    exact = values.double().numpy()
    found = moments_of(values, (0,))
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.variance, exact.var(0), rtol=1e-5)


def test_doubles_are_summed_in_doubles() -> None:
    values = torch.randn(50, 2, dtype=torch.float64)
    np.testing.assert_allclose(moments_of(values, (0,)).variance, values.numpy().var(0), rtol=1e-13)


def test_pooled_positions_are_further_samples() -> None:
    values = torch.randn(6, 3, 4, 5) + 7
    assert_same(moments_of(values, (0,)).pooled((1, 2)), moments_of(values, (0, 2, 3)))
    assert moments_of(values, (0,)).pooled(()).mean.shape == (3, 4, 5)


def repeated(values: Tensor, labels: Tensor, times: dict[int, int]) -> np.ndarray:
    parts = [values[labels == label].repeat(n, *[1] * (values.ndim - 1)) for label, n in times.items()]
    return torch.cat(parts).double().numpy()


def test_balanced_moments_are_those_of_classes_repeated_to_one_size() -> None:
    values, labels = (
        torch.randn(14, 3) + torch.arange(14)[:, None] / 3,
        torch.tensor([0] * 8 + [1] * 4 + [2] * 2),
    )
    classes = [moments_of(values[labels == label], (0,)) for label in range(3)]
    even = repeated(values, labels, {0: 1, 1: 2, 2: 4})
    found = balanced_moments(classes)
    np.testing.assert_allclose(found.mean, even.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.variance, even.var(0), rtol=1e-5)


def test_balanced_moments_of_two_normal_classes_in_closed_form() -> None:
    """Means ±d and variances a, b: the mixture in equal parts has variance (a + b) / 2 + d²."""
    d, a, b = 1.5, 0.25, 4.0
    classes = [
        Moments(1000, torch.tensor([d]).double(), torch.tensor([a * 1000]).double()),
        Moments(10, torch.tensor([-d]).double(), torch.tensor([b * 10]).double()),
    ]
    assert balanced_moments(classes).variance.item() == pytest.approx((a + b) / 2 + d**2, rel=1e-12)
