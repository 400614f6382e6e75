"""Bins of coefficients: those of numpy.histogram, in any chunking, at the edges as well."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.filters.sketching.binning import Binning


def binning_of(
    width: int, *, limit: float, bins: int = 70, seed: int = 0
) -> tuple[Binning, npt.NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    components = np.linalg.qr(random.standard_normal((width, width)))[0]
    return Binning(torch.zeros(width), torch.from_numpy(components), limit=limit, bins=bins), components


def scaled(width: int, count: int, seed: int) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal((width, count)).astype(np.float32)
    return values / np.abs(values).max(axis=0)


def naive(values_KN: npt.NDArray[np.floating], components: npt.NDArray[np.float64], limit: float, bins: int):
    """Python's own sums, in the order of the elements, and numpy.histogram."""
    coefficients = [
        [sum(float(f) * float(v) for f, v in zip(kernel, row, strict=True)) for kernel in values_KN.T]
        for row in components
    ]
    return np.stack([np.histogram(row, bins, (-limit, limit))[0] for row in coefficients])


@pytest.mark.parametrize(("width", "limit"), [(1, 1.1), (4, 2.2), (9, 3.2), (25, 5.4), (27, 5.6)])
def test_counts_are_those_of_numpy_histogram(width: int, limit: float) -> None:
    binning, components = binning_of(width, limit=limit)
    values = scaled(width, 500, seed=1)
    assert (binning.counts(values) == naive(values, components, limit, 70)).all()


def on_edges(width: int = 9, bins: int = 64) -> npt.NDArray[np.float64]:
    """Kernels whose coefficients in the unit basis are edges to the bit, or their neighbours."""
    edges = np.linspace(-4, 4, bins + 1)
    edges = edges[np.abs(edges) <= 1]
    around = np.concatenate([edges, np.nextafter(edges, -9), np.nextafter(edges, 9)]).clip(-1, 1)
    return np.random.default_rng(0).permutation(np.tile(around, (width, 1)), axis=1)


def test_a_value_on_an_edge_belongs_to_the_bin_above_it_and_its_lower_neighbour_to_the_bin_below() -> None:
    binning = Binning(torch.zeros(9), torch.eye(9), limit=4.0, bins=64)
    values = on_edges()
    expected = np.stack([np.histogram(row, 64, (-4, 4))[0] for row in values])
    assert (binning.counts(values) == expected).all()
    # A product in float32 alone does not tell the neighbours apart.
    rounded = np.stack([np.histogram(row.astype(np.float32), 64, (-4, 4))[0] for row in values])
    assert (rounded != expected).any()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_counts_do_not_depend_on_chunks_or_order_also_at_edges(data: st.DataObject) -> None:
    # Rotated by 45 degrees about the plane of two elements, coefficients of edges depend on how they are
    # summed.
    turn = np.eye(9)
    turn[:2, :2] = [[np.sqrt(0.5), np.sqrt(0.5)], [np.sqrt(0.5), -np.sqrt(0.5)]]
    binning = Binning(torch.zeros(9), torch.from_numpy(turn), limit=4.0, bins=64)
    values = on_edges() @ np.eye(on_edges().shape[1])
    values[:2] = np.sqrt(0.5) * np.stack([values[0] + values[1], values[0] - values[1]])
    whole = binning.counts(values)
    cuts = sorted(data.draw(st.sets(st.integers(1, values.shape[1] - 1), max_size=12)))
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(values.shape[1])
    parts = np.split(values[:, order], cuts, axis=1)
    assert (sum(binning.counts(part) for part in parts) == whole).all()


def test_values_at_the_ends_of_the_range_are_counted() -> None:
    binning = Binning(torch.zeros(1), torch.eye(1), limit=1.0, bins=2)
    assert binning.counts(np.array([[-1.0, -0.0, 1.0]])).tolist() == [[1, 2]]
