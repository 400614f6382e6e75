"""Pruning in several steps ends where one step ends, and never brings anything back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from compressor.budget import Budget, Global, Ladder, Macs, Params, Step, Uniform, next_step, stages
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.errors import BudgetError
from compressor.profiling import costs
from compressor.scoring import Norm, Scores, score

x = torch.zeros(1, 3, 12, 12)


def by_rows(graph: Graph) -> Scores:
    """Scores that a unit keeps whatever else is pruned: sums over its entries of vectors."""
    tensors = dict(graph.model.named_parameters())
    values = np.zeros(graph.n_units)
    for axis in graph.axes:
        if axis.role == "writer" and tensors.get(axis.tensor, torch.zeros(1, 1)).ndim == 1:
            free = axis.units >= 0
            np.add.at(values, axis.units[free], tensors[axis.tensor].detach().numpy()[free])
    return Scores(graph, values, "rows")


def walk(
    model: nn.Module,
    budget: Budget,
    steps: int,
    scorer: Callable[[Graph], Scores],
    between: Callable[[nn.Module], None] = lambda _: None,
) -> tuple[Graph, list[Step], nn.Module]:
    original = capture(model, x)
    taken: list[Step] = []
    for stage in stages(budget, steps):
        removed = taken[-1].removed if taken else None
        step = next_step(stage, scorer(capture(model, x)), original=original, removed=removed)
        model = apply(model, step.plan)
        between(model)
        taken.append(step)
    return original, taken, model


def spread(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize(
    "budget",
    [
        Uniform(0.5),
        Uniform(0.6, round_to=4),
        Uniform(0.8, max_ratio={"body": 0.5}),
        Uniform(0.3, ratios={"body.one": 0.7}),
        Global(0.55),
        Global(0.4, ratios={"point": 0.75}),
    ],
)
@pytest.mark.parametrize("steps", [2, 3, 5])
@pytest.mark.filterwarnings("ignore::compressor.errors.NothingToPruneWarning")
def test_with_lasting_scores_many_steps_end_where_one_ends(
    budget: Budget, steps: int, branches: Graph
) -> None:
    model = spread(branches.model)
    original, taken, small = walk(model, budget, steps, by_rows)
    at_once = budget.choose(by_rows(original))
    assert (taken[-1].removed == at_once).all()
    assert costs(capture(small, x)) == costs(original, at_once)


@pytest.mark.parametrize("budget", [Macs(0.4), Params(0.3, ignore="body.one"), Macs(0.3, round_to=4)])
def test_fractions_count_from_the_original_model(budget: Macs | Params, branches: Graph) -> None:
    def jolt(model: nn.Module) -> None:
        spread(model)  # stands for fine-tuning: nothing is as it was scored before

    original, taken, small = walk(branches.model, budget, 3, lambda g: score(g, Norm()), jolt)
    name = "macs" if isinstance(budget, Macs) else "params"
    whole, before = getattr(costs(original), name), math.inf
    for number, step in enumerate(taken, 1):
        left = getattr(costs(original, step.removed), name)
        assert left <= min(before, whole * budget.fraction ** (number / 3) + 1e-6)
        before = left
    assert before <= Fraction(str(budget.fraction)) * whole
    assert before >= Fraction(str(budget.fraction)) * whole * Fraction(7, 10)
    assert costs(capture(small, x)) == costs(original, taken[-1].removed)


def test_nothing_comes_back_and_the_plans_compose(branches: Graph) -> None:
    def jolt(model: nn.Module) -> None:
        spread(model)

    original, taken, _ = walk(branches.model, Macs(0.3), 4, lambda g: score(g, Norm()), jolt)
    whole: Plan | None = None
    gone = np.zeros(original.n_units, dtype=bool)
    for step in taken:
        assert (gone <= step.removed).all()
        assert (gone != step.removed).any()
        gone = step.removed
        whole = step.plan if whole is None else step.plan.after(whole)
        expected = original.plan(gone)
        assert set(whole.cuts) == set(expected.cuts)
        assert set(whole.sizes) == set(expected.sizes)


def test_what_is_left_falls_geometrically() -> None:
    assert [stage.ratio for stage in stages(Uniform(0.75), 2)] == [0.5, 0.75]
    assert [stage.ratio for stage in stages(Global(0.875), 3)] == pytest.approx([0.5, 0.75, 0.875])
    assert [stage.fraction for stage in stages(Params(0.125), 3)] == pytest.approx([0.5, 0.25, 0.125])
    first, last = stages(Macs(0.25, ratios={"a": 0.75}, round_to=8), 2)
    assert first == Macs(0.5, ratios={"a": 0.5}, round_to=8)
    assert last == Macs(0.25, ratios={"a": 0.75}, round_to=8)


@pytest.mark.parametrize("steps", [0, -1, 2.0, True])
def test_a_number_of_steps_is_a_whole_number(steps: int) -> None:
    with pytest.raises(BudgetError, match="a whole number, at least 1"):
        stages(Uniform(0.5), steps)


def test_a_budget_that_cannot_be_divided_says_so() -> None:
    @dataclass(frozen=True)
    class OneEach(Budget):
        def lost(self, ladder: Ladder) -> np.ndarray:
            return np.ones_like(ladder.sizes)

    assert stages(OneEach(), 1) == (OneEach(),)
    with pytest.raises(BudgetError, match=r"OneEach does not say.*`part`"):
        stages(OneEach(), 2)


def test_the_wrong_original_is_refused(branches: Graph) -> None:
    removed = Uniform(0.5).choose(score(branches, Norm()))
    small = apply(branches.model, branches.plan(removed))
    scores = score(capture(small, x), Norm())
    with pytest.raises(BudgetError, match=r"has 8 channels, .*16 were expected"):
        next_step(Uniform(0.7), scores, original=branches)
