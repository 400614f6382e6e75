"""Uniform and global ratios: exact counts, whatever the scores."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.budget import Global, Uniform
from compressor.core.graph import Graph
from compressor.errors import NothingToPruneWarning, UnreachableBudgetError
from compressor.scoring import Scores

percents = st.integers(1, 99)


@settings(deadline=None, max_examples=40)
@given(percent=percents, seed=st.integers(0, 99))
def test_uniform_takes_the_ratio_of_every_group_rounded_down(
    percent: int, seed: int, graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 10, 7, 25, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToPruneWarning)
        removed = Uniform(percent / 100).choose(scored(graph, seed))
    for group, size in zip(graph.groups, (10, 7, 25), strict=True):
        (cell,) = group.cells
        assert removed[cell].sum() == min(size * percent // 100, size - 1)


@settings(deadline=None, max_examples=40)
@given(percent=percents, values=st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_global_takes_the_lowest_scores_and_an_exact_count(
    percent: int, values: list[int], graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 10, 20, 2)  # full of ties
    count = 30 * percent // 100
    if count > 28:
        with pytest.raises(UnreachableBudgetError, match="at most 28 can"):
            Global(percent / 100).choose(scored(graph, values))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToPruneWarning)
        removed = Global(percent / 100).choose(scored(graph, values))
    assert removed.sum() == count
    scores = np.array(values)
    for cell in (group.cells[0] for group in graph.groups):
        gone, kept = scores[cell][removed[cell]], scores[cell][~removed[cell]]
        assert kept.size
        assert not gone.size or gone.max() <= kept.min()
    free = [c for g in graph.groups for c in g.cells[0] if (~removed[g.cells[0]]).sum() > 1]
    staying = scores[[unit for unit in free if not removed[unit]]]
    if removed.any() and staying.size:
        assert scores[removed].max() <= staying.min()


def test_ties_go_by_index_within_a_group_and_evenly_over_groups(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 10, 20, 2)
    removed = Global(0.5).choose(scored(graph, np.ones(30)))
    assert removed.sum() == 15
    first, second = (removed[group.cells[0]] for group in graph.groups)
    assert first.tolist() == [True] * 5 + [False] * 5
    assert second.tolist() == [True] * 10 + [False] * 10


@settings(deadline=None, max_examples=25)
@given(one=percents, other=percents, seed=st.integers(0, 9))
@pytest.mark.parametrize("make", [Uniform, Global])
def test_a_larger_ratio_removes_all_that_a_smaller_one_does(
    make: Callable[[float], Uniform | Global],
    one: int,
    other: int,
    seed: int,
    graph_of: Callable[..., Graph],
    scored: Callable[..., Scores],
) -> None:
    graph = graph_of(4, 13, 9, 31, 2)
    less, more = sorted((min(one, 90), min(other, 90)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToPruneWarning)
        small = make(less / 100).choose(scored(graph, seed))
        large = make(more / 100).choose(scored(graph, seed))
    assert (small <= large).all()


@pytest.mark.parametrize("budget", [Uniform(0.5), Global(0.5)])
def test_cells_of_a_group_lose_equally_many_each_its_lowest(
    budget: Uniform | Global, branches: Graph, scored: Callable[..., Scores]
) -> None:
    scores = scored(branches)
    removed = budget.choose(scores)
    several = [group for group in branches.groups if len(group.cells) > 1]
    assert several
    for group in several:
        counts = {int(removed[cell].sum()) for cell in group.cells}
        assert len(counts) == 1 and counts != {0}
        for cell in group.cells:
            gone = removed[cell]
            assert scores.values[cell][gone].max() < scores.values[cell][~gone].min()


def test_global_counts_channels_not_units_and_not_ignored_ones(
    branches: Graph, scored: Callable[..., Scores]
) -> None:
    free = 16 + 24 + 32  # stem with body.two, body.one, grouped with depthwise
    removed = Global(0.25, ignore="point").choose(scored(branches))
    rows = {cut.tensor: len(cut.removed) for cut in branches.plan(removed).cuts if cut.axis == 0}
    gone = sum(rows.get(f"{name}.weight", 0) for name in ("stem.0", "body.one", "grouped"))
    # One rank of the grouped convolution is four channels: the count may fall short of it by three.
    assert math.floor(free * 0.25) - 3 <= gone <= free * 0.25


def test_rounding_keeps_more_never_less(branches: Graph, scored: Callable[..., Scores]) -> None:
    with pytest.warns(NothingToPruneWarning, match="point.weight"):
        removed = Uniform(0.3, round_to=8).choose(scored(branches))
    rows = {cut.tensor: len(cut.keep) for cut in branches.plan(removed).cuts if cut.axis == 0}
    # 16 * 0.7 = 11.2 -> 16, 24 * 0.7 = 16.8 -> 24, 32 * 0.7 = 22.4 -> 24, 12 * 0.7 = 8.4 -> 12
    assert "stem.0.weight" not in rows
    assert "body.one.weight" not in rows
    assert rows["grouped.weight"] == 24
    assert "point.weight" not in rows


def test_global_with_rounding_comes_as_near_as_one_step(
    branches: Graph, scored: Callable[..., Scores]
) -> None:
    total = 16 + 24 + 32 + 12
    removed = Global(0.4, round_to=4).choose(scored(branches))
    names = ("stem.0", "body.one", "grouped", "point")
    rows = {cut.tensor: len(cut.removed) for cut in branches.plan(removed).cuts if cut.axis == 0}
    gone = sum(rows.get(f"{name}.weight", 0) for name in names)
    assert 0 <= Fraction(4, 10) * total - gone < 4


def test_a_budget_too_small_for_any_channel_warns(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 8, 8, 2)
    for budget in (Uniform(0.1), Global(0.05)):
        with pytest.warns(NothingToPruneWarning, match="removed nothing"):
            assert not budget.choose(scored(graph)).any()


def test_groups_that_stay_whole_under_a_uniform_ratio_are_named(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 3, 20, 2)
    with pytest.warns(NothingToPruneWarning, match=r"1 of 2 groups stay whole.*0\.weight \(3 channels"):
        Uniform(0.25).choose(scored(graph))


def test_global_says_how_far_it_could_get(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 10, 20, 2)
    with pytest.raises(UnreachableBudgetError) as caught:
        Global(0.9, max_ratio={"0": 0.5}).choose(scored(graph))
    text = str(caught.value)
    assert "asks for 27 of 30 channels to go, and at most 24 can (ratio 0.8)" in text
    assert "max_ratio['0'] = 0.5" in text
