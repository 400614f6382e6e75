"""Random networks × scores × budgets: what was asked for is met, or is said to be out of reach."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import compressor as cp
from compressor.budget import All, Budget, CostFraction, Global, Latency, Params, Uniform, stages
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.errors import BudgetError, NothingToPruneError, UnreachableBudgetError, VerifyError
from compressor.scoring import Scores
from tests.core.driver import random_removal
from tests.fuzz.conftest import Fuzz
from tests.fuzz.drawing import Build, Drawn, Outcome, budgets, drawn, scores

EXACT = 1e-9
CONTRADICTIONS = ("`ratios` alone leave", "drop one of the two", "contradicts max_ratio", "the model has no")


def outputs(model: nn.Module, args: Any) -> list[Tensor]:
    with torch.no_grad():
        found = model(*args)
    return list(found) if isinstance(found, tuple) else [found]


def assert_met(budget: Budget, graph: Graph, small: nn.Module, again: Graph) -> None:
    """Every cost is counted anew on the small network, parameters one by one."""
    parts = budget.parts if isinstance(budget, All) else (budget,)
    for part in parts:
        if isinstance(part, Params):
            before, after = (sum(p.numel() for p in net.parameters()) for net in (graph.model, small))
            assert after <= part.fraction * before * (1 + 1e-12), part
        if isinstance(part, CostFraction) and not isinstance(part, Latency):  # a table is one network's
            whole, left = part.cost(graph).total(), part.cost(again).total()
            assert left <= part.fraction * whole * (1 + 1e-9), (part, left, whole)


def assert_honest(budget: Budget, graph: Graph, error: UnreachableBudgetError) -> None:
    """The message says how far one gets, and where nothing limits a cut, the deepest one goes no further."""
    text = str(error)
    assert repr(budget) in text and any(word in text for word in ("is the least", "at most")), text
    limits = (budget.ignore, budget.max_ratio, budget.ratios, budget.min_channels, budget.round_to)
    if limits != ((), 1.0, {}, 1, 1) or isinstance(budget, Latency | Global | Uniform):
        return
    parts = budget.parts if isinstance(budget, All) else (budget,)
    deepest = np.zeros(graph.n_units, dtype=bool)
    for group in graph.groups:
        for cell in group.cells:
            deepest[cell[: group.size - 1]] = True
    costs = [(part.cost(graph), part.fraction) for part in parts if isinstance(part, CostFraction)]
    assert any(cost.total(deepest) > fraction * cost.total() for cost, fraction in costs), text


def assert_files_keep_it(build: Build, plan: Plan, small: nn.Module, graph: Graph) -> None:
    """The plan and the network come back from their files as they went."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        plan.save(folder / "plan.json")
        assert Plan.load(folder / "plan.json") == plan
        cp.save(small, folder / "small")
        again = cp.load(folder / "small", build)
    for a, b in zip(outputs(small, graph.args), outputs(again, graph.args), strict=True):
        assert torch.equal(a, b)
    assert cp.plan_of(again) == plan


def digest(plan: Plan) -> str:
    return str(json.loads(plan.to_json())["digest"])


def check_budget(data: st.DataObject) -> Outcome:
    network = drawn(data)
    if not network.graph.n_units:
        return Outcome("nothing free", network.choices)
    given = scores(data, network.graph)
    try:
        budget = budgets(data, network.graph)
    except cp.errors.InputError as error:
        assert "Latency" in str(error) or "table" in str(error), error
        return Outcome("no latency table", network.choices)
    what, plan = asked(network, given, budget)
    return Outcome(what, network.choices, repr(budget), None if plan is None else digest(plan))


def asked(network: Drawn, given: Scores, budget: Budget) -> tuple[str, Plan | None]:
    """What a budget comes to, and the plan that was cut, proved, counted anew and written to files."""
    graph = network.graph
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = cp.plan(given, budget)
    except UnreachableBudgetError as error:
        assert_honest(budget, graph, error)
        return f"{type(budget).__name__} out of reach", None
    except NothingToPruneError:
        return "nothing to prune", None
    except BudgetError as error:
        assert any(words in str(error) for words in CONTRADICTIONS), error
        return "limits that contradict", None
    small = cp.apply(graph.model, plan)
    assert cp.verify(graph.model, small, plan, *graph.args, graph=graph).error <= EXACT
    assert_met(budget, graph, small, cp.capture(small, *graph.args))
    assert_files_keep_it(network.build, plan, small, graph)
    return f"{type(budget).__name__} met", plan


def check_steps(data: st.DataObject) -> Outcome:
    """Gradual pruning ends where one step would, within the budget; every step's cut is proved inside."""
    network = drawn(data)
    graph = network.graph
    budget = data.draw(st.sampled_from([cp.budget.Macs(0.5), cp.budget.Params(0.4), cp.budget.Global(0.4)]))
    steps = data.draw(st.integers(2, 3))
    said = f"{budget} in {steps} steps"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = cp.prune(graph.model, *graph.args, budget=budget, steps=steps)
    except UnreachableBudgetError:
        return Outcome("out of reach", network.choices, said)
    except NothingToPruneError:
        return Outcome("nothing to prune", network.choices, said)
    assert len(stages(budget, steps)) == steps
    assert_met(budget, graph, small, cp.capture(small, *graph.args))
    plan = cp.plan_of(small)
    return Outcome("met", network.choices, said, None if plan is None else digest(plan))


def check_twice(data: st.DataObject) -> Outcome:
    """Two cuts, one after the other, are the cut of the two plans as one, through files as well."""
    network = drawn(data)
    graph = network.graph
    seed = data.draw(st.integers(0, 2**16))
    first = graph.plan(random_removal(graph, seed))
    halfway = cp.apply(graph.model, first)
    later = cp.capture(halfway, *graph.args)
    second = later.plan(random_removal(later, seed + 1))
    small, whole = cp.apply(halfway, second), second.after(first)
    whole = Plan.from_json(whole.to_json())
    for (name, a), (_, b) in zip(
        small.state_dict().items(), cp.apply(graph.model, whole).state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    assert cp.verify(halfway, small, second, *graph.args, graph=later).error <= EXACT
    what = "exact"
    try:
        assert cp.verify(graph.model, small, whole, *graph.args, graph=graph).error <= EXACT
    except VerifyError as error:  # what is one channel in the original can be several in the narrow network
        known = ("pinned", "depends on it elsewhere", "which lose equally many")
        assert any(words in str(error) for words in known), error
        what = "exact, proved step by step"
    return Outcome(what, network.choices, None, digest(whole))


CHECKS = {"budgets": check_budget, "steps": check_steps, "twice": check_twice}


@pytest.mark.parametrize("what", CHECKS)
def test_random_networks(what: str, fuzz: Fuzz) -> None:
    fuzz(CHECKS[what])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", CHECKS)
def test_random_networks_in_the_long_run(what: str, fuzz: Fuzz) -> None:
    fuzz(CHECKS[what])
