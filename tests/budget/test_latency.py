"""Latency budgets on a synthetic runtime: bounds, widths, promises."""

from __future__ import annotations

import itertools
import pickle
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import compressor as cp
from compressor.budget import Global, Latency, Macs, Uniform, by_score, by_score_per_ms, where_it_pays
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import BudgetError, LatencyWarning, NothingToPruneWarning, UnreachableBudgetError
from compressor.profiling import Cost, LatencyTable, latency_table, macs
from compressor.profiling.latency_table.identity import identity_of
from compressor.scoring import Scores
from tests.profiling.latency_table.synthetic import Synthetic

BLOCKS = Synthetic(block=16, odd=3.0)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 48, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(48, 8, 1),
    ).eval()


@pytest.fixture(scope="module")
def graph() -> Graph:
    return capture(network(), torch.zeros(1, 3, 16, 16))


@pytest.fixture(scope="module")
def table(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return latency_table(graph, runtime=BLOCKS, path=tmp_path_factory.mktemp("tables") / "t.json")


@pytest.fixture(scope="module")
def scores(graph: Graph) -> Scores:
    return Scores(graph, np.random.default_rng(0).random(graph.n_units), "by hand")


def kept_of(graph: Graph, removed: np.ndarray) -> list[int]:
    return [int((~removed[group.cells[0]]).sum()) for group in graph.groups]


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.8])
def test_at_most_the_fraction_is_predicted_to_be_left(
    fraction: float, graph: Graph, table: LatencyTable, scores: Scores
) -> None:
    for budget in (Latency(fraction, table), Latency(fraction, table, order=by_score_per_ms(table))):
        removed = budget.choose(scores)
        assert table.predict(graph, removed) <= fraction * table.predict(graph)
        assert set(kept_of(graph, removed)) <= {4, 8, 12, 16, 32, 48, 64}


def test_no_choice_of_widths_that_pay_keeps_a_step_more(
    graph: Graph, table: LatencyTable, scores: Scores
) -> None:
    removed = Latency(0.5, table).choose(scores)
    lost = [group.size - kept for group, kept in zip(graph.groups, kept_of(graph, removed), strict=True)]
    order = [
        cells[0][np.argsort(scores.values[cells[0]])] for cells in (group.cells for group in graph.groups)
    ]
    rungs = table.rungs(graph)
    target = 0.5 * table.predict(graph)
    better = []
    for choice in itertools.product(*rungs):
        gone = np.zeros(graph.n_units, dtype=bool)
        for units, count in zip(order, choice, strict=True):
            gone[units[:count]] = True
        if table.predict(graph, gone) <= target and all(a <= b for a, b in zip(choice, lost, strict=True)):
            better.append(choice)
    assert better == [tuple(lost)]


def test_macs_can_be_met_with_the_widths_that_pay(graph: Graph, table: LatencyTable, scores: Scores) -> None:
    plain, fast = Macs(0.5).choose(scores), Macs(0.5, round_to=table).choose(scores)
    assert macs(graph).total(fast) <= 0.5 * macs(graph).total()
    assert table.predict(graph, fast) < 0.8 * table.predict(graph, plain)


def test_steps_where_time_lags_behind_macs_come_later(
    graph: Graph, table: LatencyTable, scores: Scores
) -> None:
    order = where_it_pays(table)
    plain, fast = (Macs(0.6, order=o, round_to=8).choose(scores) for o in (by_score, order))
    assert macs(graph).total(fast) <= 0.6 * macs(graph).total()
    assert table.predict(graph, fast) <= table.predict(graph, plain)


def test_where_all_steps_pay_alike_the_order_is_the_plain_one(graph: Graph, scores: Scores) -> None:
    class Proportional:
        def cost(self, graph: Graph) -> Cost:
            return macs(graph)

    order = where_it_pays(Proportional())  # type: ignore[arg-type]
    assert (Macs(0.5, order=order).choose(scores) == Macs(0.5).choose(scores)).all()


def test_other_budgets_take_a_table_to_round_by(graph: Graph, table: LatencyTable, scores: Scores) -> None:
    assert kept_of(graph, Uniform(0.5, round_to=table).choose(scores)) == [32, 32]
    assert all(k % 16 == 0 for k in kept_of(graph, Global(0.4, round_to=table).choose(scores)))


def test_limits_hold_beside_the_table(graph: Graph, table: LatencyTable, scores: Scores) -> None:
    assert kept_of(graph, Latency(0.7, table, ignore="0").choose(scores))[0] == 64
    assert min(kept_of(graph, Latency(0.5, table, min_channels=20).choose(scores))) >= 32
    assert set(kept_of(graph, Latency(0.5, table, round_to=32).choose(scores))) <= {32, 48, 64}


def test_a_fraction_out_of_reach_says_how_far_one_gets(table: LatencyTable, scores: Scores) -> None:
    with pytest.raises(UnreachableBudgetError, match=r"ms of latency.*is the least that can be left"):
        Latency(0.01, table).choose(scores)


@pytest.mark.parametrize("wrong", [None, 0.5, "table"])
def test_what_is_no_table_is_refused(wrong: object) -> None:
    with pytest.raises(BudgetError, match=r"latency_table\(capture"):
        Latency(0.5, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, 0, "16", LatencyTable])
def test_what_rounds_nothing_is_refused(wrong: object) -> None:
    with pytest.raises(BudgetError, match="round_to"):
        Macs(0.5, round_to=wrong)  # type: ignore[arg-type]


def test_a_budget_shows_itself_in_a_line(table: LatencyTable) -> None:
    assert repr(Latency(0.5, table)).startswith("Latency(0.5, LatencyTable(Synthetic(")
    assert "\n" not in repr(Macs(0.5, round_to=table))


def test_gradual_pruning_ends_at_the_fraction(graph: Graph, table: LatencyTable) -> None:
    x = torch.zeros(1, 3, 16, 16)
    small = cp.prune(graph.model, x, budget=Latency(0.4, table), steps=2)
    whole, left = (BLOCKS.ms(model, [x], {}) for model in (graph.model, small))
    assert left <= 0.44 * whole


def test_a_promise_that_is_kept_is_not_mentioned(graph: Graph, table: LatencyTable) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", LatencyWarning)
        cp.prune(graph.model, torch.zeros(1, 3, 16, 16), budget=Latency(0.5, table))


@dataclass(frozen=True, kw_only=True)
class Unmoved(Synthetic):
    """Takes the same time for everything."""

    def ms(self, model: nn.Module, args: object, kwargs: object) -> float:
        return 1.0


def test_a_promise_that_is_not_kept_is_said_with_both_numbers(graph: Graph, table: LatencyTable) -> None:
    unmoved = Unmoved(block=16, odd=3.0)
    identity = replace(table.identity, runtime=identity_of(unmoved).runtime)
    broken = replace(table, runtime=unmoved, identity=identity)
    with pytest.warns(LatencyWarning, match=r"NOT kept: 0\.5 of it was to be left, 1 is"):
        cp.prune(graph.model, torch.zeros(1, 3, 16, 16), budget=Latency(0.5, broken))


def test_a_table_of_another_machine_is_said_to_be_unchecked(graph: Graph, table: LatencyTable) -> None:
    phone = replace(table, identity=replace(table.identity, processor="Phone"))
    with pytest.warns(LatencyWarning, match="not known: .*cannot be checked here: its processor is 'Phone'"):
        small = cp.prune(graph.model, torch.zeros(1, 3, 16, 16), budget=Latency(0.5, phone))
    assert small[0].out_channels + small[2].out_channels < 64 + 48


def test_a_multiple_may_be_a_number_of_numpy(graph: Graph, scores: Scores) -> None:
    removed = Uniform(0.5, round_to=np.int64(8)).choose(scores)  # type: ignore[arg-type]
    assert kept_of(graph, removed) == [32, 24]


def test_a_budget_with_a_table_can_be_pickled(graph: Graph, table: LatencyTable, scores: Scores) -> None:
    budget = Latency(0.5, table)
    removed = budget.choose(scores)
    again = pickle.loads(pickle.dumps(budget))
    assert (again.choose(scores) == removed).all()


def test_groups_that_no_width_helps_are_named(graph: Graph, table: LatencyTable, scores: Scores) -> None:
    with pytest.warns(NothingToPruneWarning, match="because of rounding"):
        Uniform(0.5, round_to=table, min_channels=40).choose(scores)
