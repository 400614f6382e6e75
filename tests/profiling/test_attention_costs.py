"""Costs of models with heads: a plan's cost is that of the captured pruned model, to the unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.core.capture import capture
from compressor.core.surgery import apply
from compressor.errors import PlanMismatchError
from compressor.profiling import costs, macs, params, removed_by
from tests.core.driver import random_removal
from tests.core.transformers import ENTERING, TOKENS, Sizes, example, sizes, transformer


@settings(deadline=None, max_examples=10)
@given(sizes=sizes(), seed=st.integers(0, 999))
def test_the_cost_of_a_plan_is_that_of_the_captured_pruned_model(sizes: Sizes, seed: int) -> None:
    graph = transformer(sizes)
    removed = random_removal(graph, seed)
    plan = graph.plan(removed)
    counted, recaptured = costs(graph, removed), costs(capture(apply(graph.model, plan), example()))
    # Axes of size one have no stride of their own: whether `transpose` and `reshape` copy changes there.
    rest = [group.size - int(removed[group.cells[0]].sum()) for group in graph.groups]
    if min(*rest, sizes.heads, sizes.groups, sizes.dims, sizes.values, sizes.width) > 1:
        assert counted == recaptured
    assert replace(counted, activation_bytes=0) == replace(recaptured, activation_bytes=0)
    assert costs(graph, plan) == costs(graph, removed)
    assert removed_by(graph, plan).tolist() == removed.tolist()


@settings(deadline=None, max_examples=10)
@given(sizes=sizes(), seed=st.integers(0, 999))
def test_costs_along_an_order_fall_with_every_rank(sizes: Sizes, seed: int) -> None:
    graph = transformer(sizes)
    generator = np.random.default_rng(seed)
    order = [np.stack([generator.permutation(c)[: g.size] for c in g.cells]) for g in graph.groups]
    lost = np.array([generator.integers(0, group.size) for group in graph.groups], dtype=np.int64)
    removed = np.zeros(graph.n_units, dtype=bool)
    for cells, count in zip(order, lost, strict=True):
        removed[cells[:, :count]] = True
    for cost in (macs(graph), params(graph)):
        at = cost.along(order)
        assert at(lost) == cost.total(removed)
        for position in np.flatnonzero(lost):
            less = lost.copy()
            less[position] -= 1
            assert at(less) > at(lost)


@pytest.mark.parametrize("kind", ["apart", "packed"])
def test_macs_of_attention_are_those_counted_by_hand(kind: str) -> None:
    heads, dims, width, hidden, n = 3, 4, 7, 5, TOKENS
    graph = transformer(Sizes(kind, heads, dims, dims, heads, hidden, 1, width))

    def by_hand(heads: int, dims: int) -> int:
        projections = n * width * 4 * heads * dims
        attention = 2 * heads * n * n * dims
        return ENTERING * width * n + projections + attention + 2 * n * width * hidden + 3 * width

    assert costs(graph).macs == by_hand(heads, dims)
    removed = np.zeros(graph.n_units, dtype=bool)
    for group in graph.groups:
        if group.name.startswith("attentions"):
            removed[group.cells[0][:1]] = True
    assert costs(graph, removed).macs == by_hand(heads - 1, dims - 1)


def test_a_plan_that_keeps_the_keys_of_a_head_that_goes_is_refused() -> None:
    graph = transformer(Sizes(heads=2, groups=2, dims=3, values=3))
    mask = np.zeros(graph.n_units, dtype=bool)
    mask[next(group for group in graph.groups if group.size == 2).cells[0][:1]] = True
    plan = graph.plan(mask)
    assert removed_by(graph, plan).tolist() == mask.tolist()
    without_keys = replace(plan, cuts=tuple(cut for cut in plan.cuts if ".k." not in cut.tensor))
    with pytest.raises(PlanMismatchError, match=r"0\.k\.weight' axis 0.* \[\], but .* with \[0, 1, 2\] here"):
        removed_by(graph, without_keys)
