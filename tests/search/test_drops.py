"""Budgets by sensitivity: what each group tolerates, and the least drop, held to enumeration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import compressor as cp
from compressor.budget import Macs, Memory, Params, Uniform
from compressor.errors import BudgetError, InputError, UnreachableBudgetError
from compressor.scoring import Scores
from compressor.search import Curve, LeastDrop, MaxDrop, Sensitivity, sensitivity
from tests.search.evaluations import WIDTHS, by_width, network


@pytest.fixture(scope="module")
def scores() -> Scores:
    """Norms of the network's channels."""
    return cp.score(cp.capture(network(), torch.ones(1, 6)), cp.scoring.Norm(power=2))


def counts(budget: cp.budget.Budget, scores: Scores) -> tuple[int, ...]:
    removed = budget.choose(scores)
    return tuple(int(removed[group.cells[0]].sum()) for group in scores.graph.groups)


def of_drops(scores: Scores, drops: list[list[float]]) -> Sensitivity:
    """A sensitivity that measured every count of ranks."""
    curves = [
        Curve(
            group.name, group.size, tuple(range(1, len(own) + 1)), tuple(1 - d for d in own), (0,) * len(own)
        )
        for group, own in zip(scores.graph.groups, drops, strict=True)
    ]
    return Sensitivity("Sequential", "0f", scores.scorer, "q", 0, 1.0, 1, (0.9,), tuple(curves))


SQUARES = [[w * (n / size) ** 2 for n in range(1, size)] for w, size in zip((3, 1, 0.5), WIDTHS, strict=True)]


def test_each_group_loses_what_it_tolerates_alone(scores: Scores) -> None:
    # 3 s² <= 0.27: 3 of 12; s² <= 0.27: 10 of 20 (0.52 s); 0.5 s² <= 0.27: 5 of 8
    assert counts(MaxDrop(of_drops(scores, SQUARES), 0.27), scores) == (3, 10, 5)
    assert counts(MaxDrop(of_drops(scores, SQUARES), 0.27, round_to=4, ignore="0"), scores) == (0, 8, 4)


def test_only_what_was_measured_is_tolerated() -> None:
    net, x = network(), torch.ones(1, 6)
    found = sensitivity(net, x, evaluate=by_width, ratios=(0.1, 0.45), groups=["2", "4"])
    scores = cp.score(cp.capture(net, x), cp.scoring.DEFAULT)
    assert counts(MaxDrop(found, 0.19), scores) == (0, 2, 3)


@pytest.fixture(scope="module")
def small_scores() -> Scores:
    """Those of three layers of 7, 9 and 6 channels: 378 choices in all."""
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 6), nn.ReLU())
    net = nn.Sequential(*net, nn.Linear(6, 2))
    return cp.score(cp.capture(net, torch.ones(1, 5)), cp.scoring.Random(0))


def drop_and_least(
    macs: int, params: int, worth: Sequence[float], power: float, scores: Scores
) -> tuple[float, float] | None:
    """What `LeastDrop` comes to and the least of all 378 choices; None where no choice meets both costs."""
    drops = [[w * (n / s) ** power for n in range(1, s)] for w, s in zip(worth, (7, 9, 6), strict=True)]
    budget = LeastDrop(of_drops(scores, drops), [Macs(macs / 100), Params(params / 100)])
    kept = np.stack(np.meshgrid(*(np.arange(s, 0, -1) for s in (7, 9, 6)), indexing="ij"), -1).reshape(-1, 3)
    work = 5 * kept[:, 0] + kept[:, 0] * kept[:, 1] + kept[:, 1] * kept[:, 2] + 2 * kept[:, 2]
    elements = work + kept.sum(1) + 2
    fits = (work * 100 <= macs * work[0]) & (elements * 100 <= params * elements[0])
    tables = [np.array([0.0, *own]) for own in drops]
    total = sum(own[size - kept[:, i]] for i, (own, size) in enumerate(zip(tables, (7, 9, 6), strict=True)))
    if not fits.any():
        with pytest.raises(UnreachableBudgetError):
            budget.choose(scores)
        return None
    lost = counts(budget, scores)
    (here,) = np.flatnonzero((kept == [7 - lost[0], 9 - lost[1], 6 - lost[2]]).all(1))
    assert fits[here]
    assert budget.predicted_drop(scores) == pytest.approx(total[here])
    return float(total[here]), float(total[fits].min())


@settings(deadline=None, max_examples=25)
@given(
    macs=st.integers(20, 80),
    params=st.integers(25, 90),
    worth=st.tuples(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0.1, 5)),
    power=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_all_costs_are_met_and_the_predicted_drop_is_near_the_least(
    macs: int, params: int, worth: tuple[float, ...], power: float, small_scores: Scores
) -> None:
    found = drop_and_least(macs, params, worth, power, small_scores)
    if found is not None:
        ours, least = found
        assert least - 1e-9 <= ours <= 1.5 * least + 1e-9  # a local optimum, see `Allocation`


def test_the_predicted_drop_is_the_least_of_all_choices(small_scores: Scores) -> None:
    draw = np.random.default_rng(0)
    cases = [(44, 47, (4.0, 5.0, 3.0), 2.0)]  # needs a start with one group whole
    for _ in range(60):
        macs, params = int(draw.integers(20, 81)), int(draw.integers(25, 91))
        cases.append((macs, params, tuple(draw.uniform(0.1, 5, 3)), float(draw.choice([0.5, 1, 2]))))
    found = [drop_and_least(*case, small_scores) for case in cases]
    reached = [pair for pair in found if pair is not None]
    assert len(reached) > 50
    assert all(ours == pytest.approx(least) for ours, least in reached)


def test_no_other_budget_is_predicted_to_cost_less(scores: Scores) -> None:
    found = of_drops(scores, SQUARES)
    for fraction in (0.3, 0.5, 0.8):
        for other in (Macs(fraction), Macs(fraction, order=cp.budget.by_ratio)):
            lost = counts(other, scores)
            cost = sum(([0.0, *own])[n] for own, n in zip(SQUARES, lost, strict=True))
            assert LeastDrop(found, Macs(fraction)).predicted_drop(scores) <= cost + 1e-12


def test_every_part_holds_within_the_limits(scores: Scores) -> None:
    budget = LeastDrop(of_drops(scores, SQUARES), [Macs(0.5), Memory(0.9)], round_to=2, max_ratio={"2": 0.3})
    removed = budget.choose(scores)
    for part in (Macs(0.5), Memory(0.9)):
        cost = part.cost(scores.graph)
        assert cost.total(removed) <= part.fraction * cost.total()
    lost = counts(budget, scores)
    assert all((size - n) % 2 == 0 for size, n in zip(WIDTHS, lost, strict=True))
    assert lost[1] <= 6


def test_a_peak_in_two_places_falls_though_no_single_layer_lowers_it() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (
                nn.Linear(4, 32),
                nn.Linear(32, 4),
                nn.Linear(4, 32),
                nn.Linear(32, 2),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.d(torch.tanh(self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))))

    scores = cp.score(cp.capture(Twice(), torch.ones(1, 4)), cp.scoring.Random(0))
    drops = [[0.01 * n for n in range(1, group.size)] for group in scores.graph.groups]
    budget = LeastDrop(of_drops(scores, drops), Memory(0.5))
    cost = Memory(0.5).cost(scores.graph)
    assert 2 * cost.total(budget.choose(scores)) <= cost.total()


def test_groups_that_were_not_measured_stay_whole(scores: Scores) -> None:
    found = of_drops(scores, SQUARES)
    part = Sensitivity(**{**vars(found), "curves": found.curves[1:]})
    assert counts(LeastDrop(part, Macs(0.7)), scores)[0] == 0
    with pytest.raises(
        UnreachableBudgetError, match=r"with the ratios that were measured, at most 0\.9 of a group"
    ):
        LeastDrop(part, Macs(0.15)).choose(scores)


def test_what_no_choice_meets_is_said_as_by_other_budgets(scores: Scores) -> None:
    with pytest.raises(UnreachableBudgetError, match=r"Macs\(0.01\) asks for at most 4 of 496 MACs"):
        LeastDrop(of_drops(scores, SQUARES), [Params(0.9), Macs(0.01)]).choose(scores)


def test_prune_takes_it_in_steps(scores: Scores) -> None:
    net, x = network(), torch.ones(1, 6)
    found = sensitivity(net, x, evaluate=by_width, ratios=tuple(n / 20 for n in range(1, 20)))
    small = cp.prune(net, x, budget=LeastDrop(found, Macs(0.4)), steps=2)
    assert cp.profile(small, x).macs <= 0.4 * cp.profile(net, x).macs


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda found: LeastDrop(found, Uniform(0.5)), BudgetError, "is no fraction of a cost"),
        (lambda found: LeastDrop(found, []), BudgetError, r"LeastDrop\(\[\]\)"),
        (lambda found: LeastDrop(found, Macs(0.5, round_to=8)), BudgetError, "give round_to to LeastDrop"),
        (lambda found: LeastDrop(Macs(0.5), Macs(0.5)), InputError, "a Sensitivity is expected first"),
        (lambda found: MaxDrop(found, -1), InputError, "max_drop = -1"),
        (lambda found: MaxDrop(0.1, found), InputError, "what the quality may fall by"),
    ],
)
def test_what_makes_no_sense_is_refused(
    scores: Scores, make: Callable[[Sensitivity], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(of_drops(scores, SQUARES))


def test_scores_and_models_of_others_are_refused(scores: Scores) -> None:
    budget = MaxDrop(of_drops(scores, SQUARES), 0.1)
    other = cp.score(scores.graph, cp.scoring.Random(0))
    with pytest.raises(
        InputError, match=r"ranked by Norm\(p=2, power=2\), these scores are by Random\(seed=0\)"
    ):
        budget.choose(other)
    wider = nn.Sequential(nn.Linear(6, 13), nn.ReLU(), nn.Linear(13, 20), nn.ReLU(), nn.Linear(20, 3))
    foreign = cp.score(cp.capture(wider, torch.ones(1, 6)), cp.scoring.Norm(power=2))
    with pytest.raises(InputError, match=r"12 ranks in 0.weight, this Sequential has 13 ranks"):
        budget.choose(foreign)
