from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Axis, Graph
from compressor.errors import InputError
from compressor.scoring.weights import channel_slices, channel_sums, unblocked, weight_axes


def axis_of(size: int, axis: int, blocks: int = 1) -> Axis:
    return Axis("w", axis, np.arange(size), "reader", blocks)


def slice_of(tensor: Tensor, axis: int, blocks: int, channel: int) -> Tensor:
    """By the definition of a blocked axis: block = channel // width, local index = the rest."""
    width, rows = tensor.shape[axis], tensor.shape[0] // blocks
    block, local = divmod(channel, width)
    run = tensor if axis == 0 else tensor[block * rows : (block + 1) * rows]
    return run.select(axis, local)


@settings(deadline=None)  # timing is not what is tested
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.integers(0, 4),
    st.sampled_from([1, 2, 3]),
)
def test_slices_and_sums_are_those_of_a_loop_over_channels(shape: list[int], axis: int, blocks: int) -> None:
    axis %= len(shape)
    blocks = 1 if axis == 0 else blocks
    shape[0] *= blocks
    tensor = torch.randn(shape, dtype=torch.float64)
    where = axis_of(shape[axis] * blocks, axis, blocks)
    slices = channel_slices(tensor, where)
    sums = channel_sums(tensor, where)
    for channel in range(where.size):
        expected = slice_of(tensor, axis, blocks, channel)
        assert sorted(slices[channel].tolist()) == sorted(expected.flatten().tolist())
        torch.testing.assert_close(sums[channel], expected.sum())


def test_unblocked_puts_input_channels_in_their_places() -> None:
    """A grouped convolution is a dense one whose weight is zero outside its blocks."""
    weight = torch.randn(6, 2, 3, 3)  # 3 groups of 2 inputs and 2 outputs
    side_by_side = unblocked(weight, axis_of(6, 1, blocks=3))
    assert side_by_side.shape == (2, 6, 3, 3)
    for channel in range(6):
        group = channel // 2
        expected = weight[2 * group : 2 * group + 2, channel % 2]
        torch.testing.assert_close(side_by_side[:, channel], expected)


def named(axes: list[Axis]) -> set[tuple[str, int]]:
    return {(axis.tensor, axis.axis) for axis in axes}


def test_vectors_and_buffers_are_left_out(residual: Graph) -> None:
    assert named(weight_axes(residual, "writer")) == {
        ("stem.weight", 0),
        ("inner.weight", 0),
        ("outer.weight", 0),
        ("last.weight", 0),
    }
    assert named(weight_axes(residual, ("writer", "reader"))) == named(weight_axes(residual, "writer")) | {
        ("inner.weight", 1),
        ("outer.weight", 1),
        ("last.weight", 1),
        ("head.weight", 1),
    }


class ScaledInput(nn.Module):
    """Its channels are written by a vector and read by a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.rand(5))
        self.mix = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.relu(x * self.spread))


def test_units_without_a_weight_of_the_role_take_the_other_role() -> None:
    graph = capture(ScaledInput(), torch.randn(3, 1))
    assert graph.n_units == 5
    assert named(weight_axes(graph, "reader")) == {("mix.weight", 1)}
    assert named(weight_axes(graph, "writer")) == {("mix.weight", 1)}


def test_units_without_any_weight_take_vectors_and_then_buffers(residual: Graph) -> None:
    """The graph with axes taken away, as if the layers were not there."""

    def without(*tensors: str) -> set[tuple[str, int]]:
        axes = tuple(a for a in residual.axes if not a.tensor.endswith(tensors))
        return named(weight_axes(replace(residual, axes=axes), "writer"))

    matrices = ("stem.weight", "inner.weight", "outer.weight", "last.weight", "head.weight")
    first = {("bn1.weight", 0), ("inner.bias", 0), ("last.bias", 0)}  # in the graph's order
    assert without(*matrices) == first
    affine = ("weight", "bias")
    assert without(*affine) == {("bn1.running_mean", 0), ("bn2.running_mean", 0)}


@pytest.mark.parametrize("bad", ["writers", (), ("writer", "both")])
def test_an_unknown_role_is_an_input_error(residual: Graph, bad: object) -> None:
    with pytest.raises(InputError, match="roles must be 'writer', 'reader' or both, got"):
        weight_axes(residual, bad)  # type: ignore[arg-type]
