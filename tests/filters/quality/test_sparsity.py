from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import InputError
from compressor.filters.quality import (
    EPSILONS,
    Comparison,
    dead_channels,
    dead_filters,
    sparse_kernels,
    sparse_rows_and_columns,
    sparsities,
    sparsity,
)


def test_a_kernel_is_sparse_by_its_largest_weight_alone() -> None:
    kernels = torch.tensor([[8.0, 0.0], [0.079, -0.079], [0.0, -0.081], [0.0, 0.0]])
    assert sparse_kernels(kernels).tolist() == [False, True, False, True]


@pytest.mark.parametrize(("comparison", "sparse"), [(Comparison.BELOW, False), (Comparison.AT_MOST, True)])
def test_a_kernel_on_the_threshold(comparison: Comparison, sparse: bool) -> None:
    """0.01 · 1 in float32 is the float32 nearest to 0.01: in float64 the kernel would lie below."""
    kernels = torch.tensor([[1.0, 0.0], [0.01, 0.0]])
    assert sparse_kernels(kernels, comparison=comparison).tolist() == [False, sparse]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), epsilon=st.sampled_from(EPSILONS))
def test_both_comparisons_are_those_of_the_sources_arithmetic(seed: int, epsilon: float) -> None:
    """Kernels put on the thresholds, one step of float32 below and above them, computed as the sources do."""
    draw = np.random.default_rng(seed)
    peak = np.float32(draw.lognormal())
    below, at_most = np.float32(epsilon) * peak, peak / np.float32(round(1 / epsilon))
    near = [np.nextafter(t, np.float32(to)) for t in (below, at_most) for to in (0, 9)]
    peaks = np.array([peak, below, at_most, *near], dtype=np.float32)
    kernels = torch.from_numpy(peaks)[:, None] * torch.tensor([[-1.0, 0.5]])
    found = sparse_kernels(kernels, epsilon=epsilon).numpy()
    assert np.array_equal(found, peaks < below)
    found = sparse_kernels(kernels, epsilon=epsilon, comparison=Comparison.AT_MOST).numpy()
    assert np.array_equal(found, peaks <= at_most)


@pytest.mark.parametrize("comparison", Comparison)
def test_a_layer_of_zeros_is_sparse(comparison: Comparison) -> None:
    assert sparsity(torch.zeros(6, 9), comparison=comparison) == 1


def test_several_thresholds_at_once_are_those_one_by_one() -> None:
    kernels = torch.randn(500, 9) * torch.logspace(0, -5, 500)[:, None]
    found = sparsities(kernels)
    assert found == {epsilon: sparsity(kernels, epsilon=epsilon) for epsilon in EPSILONS}
    assert list(found.values()) == sorted(found.values()) and 0 < found[0.001] < found[0.1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype: torch.dtype) -> None:
    assert sparsity(torch.tensor([[1.0], [0.25], [0.005]], dtype=dtype)) == pytest.approx(1 / 3)


def test_dead_filters_and_channels_by_hand() -> None:
    weight = torch.randn(4, 3, 3, 3).sign()
    weight[1] = 0
    weight[:, 2] = 1e-3
    assert dead_filters(weight).tolist() == [False, True, False, False]
    assert dead_channels(weight).tolist() == [False, False, True]


def test_a_channel_of_a_grouped_convolution_is_dead_in_its_group_alone() -> None:
    weight = torch.ones(4, 2, 3, 3)  # channels 0, 1 are read by filters 0, 1; channels 2, 3 by 2, 3
    weight[2:, 0] = 0
    assert dead_channels(weight, groups=2).tolist() == [False, False, True, False]
    assert dead_channels(weight).tolist() == [False, False]
    sparse = torch.tensor([True, False, True, False, False, False])
    assert sparse_rows_and_columns(sparse, 2, groups=2)[1].tolist() == [
        True,
        False,
        True,
        False,
        False,
        False,
    ]


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="matrix of kernels"):
        sparsity(torch.randn(2, 2, 3, 3))
    with pytest.raises(InputError, match="one kernel at least"):
        sparsity(torch.empty(0, 9))
    with pytest.raises(InputError, match="kernels holds 1 value that is NaN"):
        sparsity(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(InputError, match=r"Comparison\.AT_MOST, got '<='"):
        sparsity(torch.ones(1, 9), comparison="<=")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="epsilon must lie between 0 and 1"):
        sparsity(torch.ones(1, 9), epsilon=1.0)
    with pytest.raises(InputError, match="5 kernels do not make 2 filters"):
        sparse_rows_and_columns(torch.ones(5, dtype=torch.bool), 2)
