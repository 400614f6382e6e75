"""Moments of receptive fields against loops over every position, place of the kernel and channel."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor.observing import LayerCall, run_batches
from compressor.observing.moments import moments_of
from compressor.scoring.receptive_fields import Field, field_moments, pixel_values

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

# What a position of the output reads: [groups][position] -> all values over samples, channels, places.
Read = dict[tuple[int, ...], list[float]]


def call_of(layer: nn.Module, inputs: Tensor) -> LayerCall:
    seen: list[LayerCall] = []
    run_batches(layer, [inputs], seen.append)
    (call,) = seen
    return call


def naive(layer: Any, inputs: Tensor, sizes: tuple[int, ...], *, transposed: bool) -> Read:
    """The values that each group's filters read at each position of the output, one by one."""
    found: Read = defaultdict(list)
    per_group = inputs.shape[1] // layer.groups
    kernels = [range(k) for k in layer.kernel_size]
    for n, channel in itertools.product(range(len(inputs)), range(inputs.shape[1])):
        group, pixels = channel // per_group, inputs[n, channel].numpy()
        starts = np.ndindex(pixels.shape) if transposed else np.ndindex(sizes)
        for start, places in itertools.product(starts, itertools.product(*kernels)):
            moved = tuple(
                at * stride - padding + place * dilation
                for at, stride, padding, place, dilation in zip(
                    start, layer.stride, layer.padding, places, layer.dilation, strict=True
                )
            )
            if transposed:
                if all(0 <= at < size for at, size in zip(moved, sizes, strict=True)):
                    found[(group, *moved)].append(float(pixels[start]))
            else:
                inside = all(0 <= at < size for at, size in zip(moved, pixels.shape, strict=True))
                found[(group, *start)].append(float(pixels[moved]) if inside else 0.0)
    return found


def assert_reads(layer: Any, inputs: Tensor, *, transposed: bool) -> None:
    call = call_of(layer, inputs)
    found = field_moments(moments_of(pixel_values(call), (0, 2)), Field.of(call))
    sizes = tuple(call.output.shape[2:])
    assert tuple(found.mean.shape) == (layer.groups, *sizes)
    expected = naive(layer, inputs, sizes, transposed=transposed)
    for place in np.ndindex(tuple(found.mean.shape)):
        values = np.array(expected[place] or [0.0], dtype=np.float64)
        np.testing.assert_allclose(found.mean[place], values.mean(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.variance[place], values.var(), rtol=1e-4, atol=1e-9)


@st.composite
def layers(draw: Any, kinds: dict[int, Any]) -> tuple[Any, Tensor]:
    """A small layer of any geometry, and inputs that are far from zero."""
    dims = draw(st.sampled_from(sorted(kinds)))
    per_dimension = {
        name: tuple(draw(st.integers(low, high)) for _ in range(dims))
        for name, low, high in (
            ("kernel_size", 1, 3),
            ("stride", 1, 3),
            ("padding", 0, 2),
            ("dilation", 1, 2),
        )
    }
    groups = draw(st.sampled_from([1, 2, 4]))
    if kinds is TRANSPOSED:
        # A kernel of n places spreads over d (n - 1) + 1 of the output; without padding it is not empty.
        per_dimension["padding"] = (0,) * dims
        most = [
            max(s, d) - 1 for s, d in zip(per_dimension["stride"], per_dimension["dilation"], strict=True)
        ]
        per_dimension["output_padding"] = tuple(draw(st.integers(0, m)) for m in most)
        if draw(st.booleans()) and all(k == 3 for k in per_dimension["kernel_size"]):
            per_dimension["padding"] = (1,) * dims
    layer = kinds[dims](4, 4, groups=groups, **per_dimension)
    sizes = [draw(st.integers(5, 6 if dims < 3 else 5)) for _ in range(dims)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return layer, torch.randn(2, 4, *sizes, generator=generator) + draw(st.sampled_from([0.0, 30.0]))


@settings(max_examples=25, deadline=None)
@given(layers(CONVOLUTIONS))
def test_a_convolution_reads_its_receptive_field(drawn: tuple[Any, Tensor]) -> None:
    layer, inputs = drawn
    assert_reads(layer, inputs, transposed=False)


@settings(max_examples=25, deadline=None)
@given(layers(TRANSPOSED))
def test_a_transposed_convolution_reads_the_pixels_that_reach_a_position(drawn: tuple[Any, Tensor]) -> None:
    layer, inputs = drawn
    assert_reads(layer, inputs, transposed=True)


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_other_padding_than_zeros_is_read_as_it_is(mode: str) -> None:
    inputs = torch.randn(3, 2, 6, 5)
    padded = nn.functional.pad(inputs, (1, 1, 1, 1), mode=mode)
    layer = nn.Conv2d(2, 4, 3, padding=1, padding_mode=mode)
    call = call_of(layer, inputs)
    found = field_moments(moments_of(pixel_values(call), (0, 2)), Field.of(call))
    expected = naive(nn.Conv2d(2, 4, 3), padded, (6, 5), transposed=False)
    for place in np.ndindex(1, 6, 5):
        np.testing.assert_allclose(found.variance[place], np.var(expected[place]), rtol=1e-4)


@pytest.mark.parametrize("kernel", [(2, 3), (4, 2)])
def test_padding_called_same_is_that_of_torch(kernel: tuple[int, int]) -> None:
    inputs = torch.randn(3, 2, 6, 5)
    layer = nn.Conv2d(2, 4, kernel, padding="same", dilation=(1, 2))
    call = call_of(layer, inputs)
    found = field_moments(moments_of(pixel_values(call), (0, 2)), Field.of(call))
    # A filter of ones over an input of one channel sums what it reads.
    summing = nn.Conv2d(2, 1, kernel, padding="same", dilation=(1, 2), bias=False)
    torch.nn.init.ones_(summing.weight)
    with torch.no_grad():
        means = summing(inputs).mean(0) / summing.weight.numel()
        squares = summing(inputs.square()).mean(0) / summing.weight.numel()
    np.testing.assert_allclose(found.mean, means, atol=1e-5)
    np.testing.assert_allclose(found.variance, squares - means.square(), rtol=1e-4)


@pytest.mark.parametrize("shape", [(7, 4), (3, 5, 4), (2, 3, 2, 4)])
def test_a_matrix_reads_all_features_at_each_position(shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape) + 3
    call = call_of(nn.Linear(4, 6), inputs)
    found = field_moments(moments_of(pixel_values(call), (0, 2)), Field.of(call))
    assert tuple(found.mean.shape) == (1, *shape[1:-1])
    for place in np.ndindex(shape[1:-1]):
        values = inputs[(slice(None), *place)].numpy().astype(np.float64)
        np.testing.assert_allclose(found.mean[(0, *place)], values.mean(), rtol=1e-5)
        np.testing.assert_allclose(found.variance[(0, *place)], values.var(), rtol=1e-4)


def test_a_constant_image_far_from_zero_does_not_vary() -> None:
    pixels = moments_of(torch.full((4, 1, 3, 8, 8), 1e4), (0, 2))
    assert not field_moments(pixels, Field((3, 3), (1, 1), (0, 0), (1, 1))).variance.any()
    bordered = field_moments(pixels, Field((3, 3), (1, 1), (1, 1), (1, 1))).variance[0]
    assert not bordered[1:-1, 1:-1].any() and bordered[0].min() > 1e6
