"""Fractions of a cost are met within one step of any layer, or the error says how far one gets."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.budget import CostFraction, Macs, Params, by_ratio, by_score
from compressor.core.graph import Graph
from compressor.errors import BudgetError, NothingToPruneWarning, UnreachableBudgetError
from compressor.profiling import costs
from compressor.scoring import Scores


def measure(budget: CostFraction, graph: Graph, removed: np.ndarray | None) -> int:
    found = costs(graph, removed)
    return found.macs if isinstance(budget, Macs) else found.params


def allowed(size: int, channels: int, step: int) -> list[int]:
    """Numbers of ranks that may stay, largest first."""
    return [k for k in range(size, 0, -1) if k == size or k * channels % step == 0]


def given_back(graph: Graph, values: np.ndarray, removed: np.ndarray, step: int) -> list[np.ndarray]:
    """Every removal that differs from `removed` by one step of one group less."""
    found = []
    for group in graph.groups:
        kept = int((~removed[group.cells[0]]).sum())
        levels = allowed(group.size, group.channels, step)
        if kept == group.size:
            continue
        more = levels[levels.index(kept) - 1] - kept
        less = removed.copy()
        for cell in group.cells:
            gone = cell[removed[cell]]
            less[gone[np.argsort(values[gone], kind="stable")][-more:]] = False
        found.append(less)
    return found


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_fraction_is_met_and_no_layer_can_have_a_step_back(
    data: st.DataObject, branches: Graph, scored: Callable[..., Scores]
) -> None:
    kind = data.draw(st.sampled_from([Macs, Params]))
    percent = data.draw(st.integers(15, 99))
    step = data.draw(st.sampled_from([1, 1, 4, 8]))
    order = data.draw(st.sampled_from([by_score, by_ratio]))
    budget = kind(percent / 100, round_to=step, order=order)
    scores = scored(branches, data.draw(st.integers(0, 99)))
    whole = measure(budget, branches, None)
    try:
        removed = budget.choose(scores)
    except UnreachableBudgetError:
        assert percent < 45 and step > 1
        return
    target = Fraction(percent, 100) * whole
    assert measure(budget, branches, removed) <= target
    for less in given_back(branches, scores.values, removed, step):
        branches.plan(less)  # legal
        assert measure(budget, branches, less) > target


@settings(deadline=None, max_examples=30)
@given(one=st.integers(10, 99), other=st.integers(10, 99), seed=st.integers(0, 20))
@pytest.mark.parametrize("kind", [Macs, Params])
def test_a_smaller_fraction_never_leaves_more_by_a_step(
    kind: type[CostFraction],
    one: int,
    other: int,
    seed: int,
    graph_of: Callable[..., Graph],
    scored: Callable[..., Scores],
) -> None:
    graph = graph_of(6, 30, 40, 20, 3)
    less, more = sorted((one, other))
    small, large = kind(less / 100), kind(more / 100)
    # One channel of the widest layer is the largest step.
    step = measure(small, graph, None) - measure(small, graph, np.arange(graph.n_units) == 30)
    left = measure(small, graph, small.choose(scored(graph, seed)))
    right = measure(large, graph, large.choose(scored(graph, seed)))
    assert left <= right + 2 * step


def test_macs_of_a_perceptron_are_met_as_counted_by_hand(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 10, 3)  # 4 * n + n * 3 = 7 n
    values = [5, 1, 9, 0, 8, 2, 7, 3, 6, 4]
    removed = Macs(0.5).choose(scored(graph, values))
    assert np.flatnonzero(removed).tolist() == [1, 3, 5, 7, 9]  # the scores 0 … 4
    assert Macs(0.49).choose(scored(graph, values)).sum() == 6
    # Parameters: 4 n + n + 3 n + 3, so 43 of 83 (0.518) for n = 5 and 35 for n = 4.
    assert Params(0.519).choose(scored(graph, values)).sum() == 5
    assert Params(0.5).choose(scored(graph, values)).sum() == 6


def test_by_ratio_thins_all_groups_alike(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(8, 40, 40, 40, 8)
    values = np.concatenate([np.full(40, 0.0), np.full(40, 1.0), np.full(40, 2.0)])
    removed = Macs(0.5, order=by_ratio).choose(scored(graph, values))
    counts = [int(removed[group.cells[0]].sum()) for group in graph.groups]
    assert max(counts) - min(counts) <= 1
    skewed = Macs(0.5).choose(scored(graph, values))
    counts = [int(skewed[group.cells[0]].sum()) for group in graph.groups]
    assert counts[0] == 39 and counts[2] == 0


def test_an_order_of_the_users_own_is_followed(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(8, 40, 40, 8)

    def last_group_first(ladder):  # type: ignore[no-untyped-def]
        return [np.full(len(a.levels) - 1, -float(position)) for position, a in enumerate(ladder.allowances)]

    removed = Macs(0.6, order=last_group_first).choose(scored(graph))
    assert removed[graph.groups[1].cells[0]].any()
    assert not removed[graph.groups[0].cells[0]].any()


def test_an_unreachable_fraction_says_how_far_it_goes_and_what_holds_the_rest(
    branches: Graph, scored: Callable[..., Scores]
) -> None:
    budget = Macs(0.2, ignore="body.one", max_ratio={"grouped": 0.5}, min_channels=5)
    with pytest.raises(UnreachableBudgetError) as caught:
        budget.choose(scored(branches))
    text = str(caught.value)
    least = Macs(0.5, ignore="body.one", max_ratio={"grouped": 0.5}, min_channels=5)
    fraction = float(text.partition("(fraction ")[2].partition(")")[0])
    assert f"{costs(branches).macs:,}" in text
    assert "body.two" in text and "ignored by 'body.one'" in text
    assert "min_channels = 5" in text
    # What the message promises can be had, and nothing beyond it.
    reached = replace(least, fraction=fraction + 1e-4).choose(scored(branches))
    assert costs(branches, reached).macs / costs(branches).macs == pytest.approx(fraction, abs=2e-4)
    with pytest.raises(UnreachableBudgetError):
        replace(least, fraction=fraction - 1e-4).choose(scored(branches))


def test_rounding_does_not_miss_the_target(branches: Graph, scored: Callable[..., Scores]) -> None:
    for step in (2, 4, 8):
        for percent in (95, 80, 60, 50):
            budget = Macs(percent / 100, round_to=step)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NothingToPruneWarning)
                removed = budget.choose(scored(branches, step + percent))
            target = math.floor(costs(branches).macs * percent / 100)
            assert costs(branches, removed).macs <= target


def test_ratios_that_overshoot_the_fraction_are_refused(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 20, 20, 3)
    with pytest.raises(BudgetError, match=r"its `ratios` alone leave a fraction of 0\.3148"):
        # 4 * 10 + 10 * 10 + 10 * 3 of 4 * 20 + 20 * 20 + 20 * 3
        Macs(0.8, ratios={"*": 0.5}).choose(scored(graph))


def test_a_budget_is_deterministic(branches: Graph, scored: Callable[..., Scores]) -> None:
    for budget in (Macs(0.5), Params(0.4, round_to=4)):
        assert (budget.choose(scored(branches, 3)) == budget.choose(scored(branches, 3))).all()
