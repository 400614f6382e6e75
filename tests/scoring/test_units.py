from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.core.graph import Graph
from compressor.errors import InputError
from compressor.scoring.units import Normalize, Reduce, choice, comparable, reduce_sites

sites = st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 5)), max_size=30)


@settings(deadline=None)  # timing is not what is tested
@given(sites, st.sampled_from(Reduce))
def test_reducing_is_a_loop_over_the_sites_of_each_unit(pairs: list[tuple[float, int]], how: Reduce) -> None:
    values = np.array([value for value, _ in pairs], dtype=float)
    units = np.array([unit for _, unit in pairs], dtype=np.int64)
    found = reduce_sites(values, units, 6, how)
    python = {Reduce.SUM: sum, Reduce.MAX: max, Reduce.FIRST: lambda own: own[0]}
    python[Reduce.MEAN] = lambda own: sum(own) / len(own)
    for unit in range(6):
        own = [value for value, of in pairs if of == unit]
        if own:
            assert found[unit] == pytest.approx(python[how](own), rel=1e-12, abs=1e-6)
        else:
            assert np.isnan(found[unit])


def groups(*owners: int) -> Graph:
    """As much of a graph as normalising needs."""
    return cast(Graph, SimpleNamespace(group_of=np.array(owners, dtype=np.int64)))


def test_mean_and_max_scale_each_group_by_its_own() -> None:
    values = np.array([1.0, 3.0, 10.0, 30.0, 20.0])
    graph = groups(0, 0, 1, 1, 1)
    np.testing.assert_allclose(comparable(values, graph, Normalize.MEAN), [0.5, 1.5, 0.5, 1.5, 1.0])
    np.testing.assert_allclose(comparable(values, graph, Normalize.MAX), [1 / 3, 1, 1 / 3, 1, 2 / 3])
    np.testing.assert_array_equal(comparable(values, graph, Normalize.NONE), values)


def test_ranks_are_fractions_of_the_group_and_ties_share_theirs() -> None:
    ranks = comparable(np.array([5.0, 1.0, 5.0, 7.0, 2.0]), groups(0, 0, 0, 0, 1), Normalize.RANK)
    np.testing.assert_allclose(ranks, [2.5 / 4, 1 / 4, 2.5 / 4, 1.0, 1.0])


@settings(deadline=None)  # timing is not what is tested
@given(
    st.lists(st.tuples(st.floats(-1e12, 1e12), st.integers(0, 3)), min_size=1, max_size=25),
    st.sampled_from(Normalize),
)
def test_normalising_never_changes_the_order_within_a_group(
    pairs: list[tuple[float, int]], how: Normalize
) -> None:
    values, owners = np.array([v for v, _ in pairs]), [g for _, g in pairs]
    found = comparable(values, groups(*owners), how)
    assert np.isfinite(found).all()
    for i, group in enumerate(owners):
        for j, other in enumerate(owners):
            if group == other and values[i] < values[j]:
                assert found[i] <= found[j]


@pytest.mark.parametrize("how", [Normalize.MEAN, Normalize.MAX])
def test_a_group_of_zeros_stays_at_zero(how: Normalize) -> None:
    np.testing.assert_array_equal(comparable(np.zeros(3), groups(0, 0, 0), how), np.zeros(3))


@pytest.mark.parametrize("how", [Normalize.MEAN, Normalize.MAX, Normalize.RANK])
def test_scale_does_not_matter_after_normalising(how: Normalize) -> None:
    values, graph = np.random.default_rng(0).random(12), groups(*[0] * 7, *[1] * 5)
    scaled = values * np.repeat([1e-30, 1e200], [7, 5])
    np.testing.assert_allclose(comparable(scaled, graph, how), comparable(values, graph, how), rtol=1e-12)


def test_no_units_are_no_scores() -> None:
    none = np.zeros(0)
    for how in Normalize:
        assert comparable(none, groups(), how).shape == (0,)
    for reduce in Reduce:
        assert reduce_sites(none, np.zeros(0, np.int64), 0, reduce).shape == (0,)


@pytest.mark.parametrize("bad", ["average", "MEAN", None, 3])
def test_an_unknown_option_lists_the_known_ones(bad: Any) -> None:
    with pytest.raises(InputError) as error:
        choice(Reduce, bad, "reduce")
    assert str(error.value) == (f"reduce must be one of 'sum', 'mean', 'max', 'first'; got {bad!r}")
