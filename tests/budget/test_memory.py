"""The memory budget: met as counted by hand, by layers at the peak only; an error says what pins it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.budget import Bytes, Memory
from compressor.core.graph import Graph
from compressor.core.surgery import apply
from compressor.errors import BudgetError, UnreachableBudgetError
from compressor.profiling import weight_bytes
from compressor.scoring import Scores
from tests.profiling.live_bytes import live_peak


def test_the_peak_falls_to_the_fraction_as_counted_by_hand(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(2, 10, 30, 3)
    # At ReLU on 30: the input and twice 30. Half of 62 is 31: twice 14, and 10 + 14 for the layer before.
    removed = Memory(0.5).choose(scored(graph, np.arange(40)[::-1].copy()))
    by_size = {group.size: int(removed[group.cells[0]].sum()) for group in graph.groups}
    assert by_size == {10: 0, 30: 16}


def test_layers_away_from_the_peak_keep_their_channels_whatever_their_scores(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(2, 10, 30, 10, 3)
    values = np.ones(graph.n_units)
    for group in graph.groups:
        if group.size == 10:
            values[group.cells[0]] = 0.001
    removed = Memory(0.6).choose(scored(graph, values))
    assert {group.size for group in graph.groups if removed[group.cells[0]].any()} == {30}


@settings(deadline=None, max_examples=40)
@given(percent=st.integers(25, 95), seed=st.integers(0, 50), step=st.sampled_from([1, 4]))
def test_the_pruned_model_holds_at_most_the_fraction_and_no_layer_can_have_a_step_back(
    percent: int, seed: int, step: int, branches: Graph, scored: Callable[..., Scores]
) -> None:
    budget = Memory(percent / 100, round_to=step)
    cost = budget.cost(branches)
    whole = cost.total()
    scores = scored(branches, seed)
    try:
        removed = budget.choose(scores)
    except UnreachableBudgetError:
        assert percent < 60
        return
    assert cost.total(removed) * 100 <= percent * whole
    if step > 1:
        return
    for group in branches.groups:
        gone = [cell[removed[cell]] for cell in group.cells]
        if len(gone[0]):
            less = removed.copy()
            for cell in gone:
                less[cell[np.argsort(scores.values[cell], kind="stable")][-1:]] = False
            assert cost.total(less) * 100 > percent * whole


def test_the_storages_of_the_pruned_model_weigh_what_the_budget_says(
    branches: Graph, scored: Callable[..., Scores]
) -> None:
    before = live_peak(branches.model, *branches.args)
    removed = Memory(0.6).choose(scored(branches, 0))
    after = live_peak(apply(branches.model, branches.plan(removed)), *branches.args)
    assert 0.5 * before < after <= 0.6 * before


def test_an_unreachable_peak_names_the_place_the_tensors_and_what_pins_them(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(2, 10, 30, 8)
    with pytest.raises(UnreachableBudgetError) as caught:
        Memory(0.2, ignore="2").choose(scored(graph))
    text = str(caught.value)
    assert "at most 49 of 248 peak activation bytes, and 248 is the least" in text
    assert "the peak is at 3 (relu), where 3 tensors are held" in text
    assert "2 (addmm): 48.4% of all peak activation bytes (ignored by '2')" in text
    assert "an input: 3.2% of all peak activation bytes (the model's inputs stay as they are)" in text
    with pytest.raises(UnreachableBudgetError, match=r"4 \(addmm\): 12.9% .*\(pinned: "):
        Memory(0.05).choose(scored(graph))


def test_a_peak_of_inputs_alone_is_named(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(200, 10, 3)
    with pytest.raises(UnreachableBudgetError, match=r"an input: 90\.9% of all"):
        Memory(0.9).choose(scored(graph))


def test_bytes_are_those_of_the_saved_weights(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 10, 3)
    removed = Bytes(0.519).choose(scored(graph, [5, 1, 9, 0, 8, 2, 7, 3, 6, 4]))
    # 8 n + 3 floats: 43 of 83 for n = 5.
    assert removed.sum() == 5
    small = apply(graph.model, graph.plan(removed))
    assert sum(t.nbytes for t in small.state_dict().values()) == weight_bytes(graph).total(removed) == 4 * 43


@pytest.mark.parametrize("kind", [Memory, Bytes])
def test_fractions_that_are_none_are_refused(kind: type[Memory | Bytes]) -> None:
    with pytest.raises(BudgetError, match=rf"{kind.__name__}\(fraction\) = 60"):
        kind(60)


def test_steps_lead_to_the_fraction() -> None:
    assert Memory(0.25).at_step(1, 2) == Memory(0.5)
