"""Several fractions at once: all are met, none is overdone, and what cannot be met is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.budget import All, Budget, Bytes, Macs, Memory, Params, Uniform, by_ratio, stages
from compressor.core.graph import Graph
from compressor.errors import BudgetError, UnreachableBudgetError
from compressor.scoring import Scores


@settings(deadline=None, max_examples=40)
@given(
    percents=st.tuples(st.integers(15, 90), st.integers(15, 90), st.integers(60, 95)),
    seed=st.integers(0, 50),
    step=st.sampled_from([1, 4]),
)
def test_every_part_is_met_and_no_layer_can_have_a_step_back(
    percents: tuple[int, int, int], seed: int, step: int, branches: Graph, scored: Callable[..., Scores]
) -> None:
    macs, params, memory = percents
    parts = [Macs(macs / 100), Params(params / 100), Memory(memory / 100)]
    scores = scored(branches, seed)
    try:
        removed = All(parts, round_to=step).choose(scores)
    except UnreachableBudgetError:
        assert min(macs, params) < 30 or memory < 70
        return

    def met(gone: np.ndarray) -> bool:
        pairs = zip(parts, percents, strict=True)
        costs = [(part.cost(branches), percent) for part, percent in pairs]
        return all(cost.total(gone) * 100 <= percent * cost.total() for cost, percent in costs)

    assert met(removed)
    if step > 1:
        return
    for group in branches.groups:
        back = removed.copy()
        for cell in group.cells:
            gone = cell[removed[cell]]
            if len(gone):
                back[gone[np.argmax(scores.values[gone])]] = False
        assert np.array_equal(back, removed) or not met(back)


def test_one_part_alone_chooses_as_it_does_without(branches: Graph, scored: Callable[..., Scores]) -> None:
    for seed in range(5):
        scores = scored(branches, seed)
        for part in (Macs(0.4), Memory(0.8), Bytes(0.3)):
            assert np.array_equal(All([part]).choose(scores), part.choose(scores))


def test_a_part_that_others_bring_about_changes_nothing(
    branches: Graph, scored: Callable[..., Scores]
) -> None:
    scores = scored(branches, 3)
    assert np.array_equal(All([Macs(0.3), Params(0.99)]).choose(scores), Macs(0.3).choose(scores))


def test_the_order_is_that_of_all(branches: Graph, scored: Callable[..., Scores]) -> None:
    scores = scored(branches, 3)
    expected = Macs(0.5, order=by_ratio).choose(scores)
    assert np.array_equal(All([Macs(0.5)], order=by_ratio).choose(scores), expected)


def test_the_part_that_cannot_be_met_is_named_with_how_far_one_gets(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(8, 10, 4)  # with one hidden channel left: 12 of 120 MACs, 17 of 134 parameters
    with pytest.raises(UnreachableBudgetError) as caught:
        All([Macs(0.1), Params(0.1)]).choose(scored(graph))
    lines = str(caught.value).splitlines()
    assert lines[0] == "All((Macs(0.1), Params(0.1))): not all of it can be met"
    assert lines[1] == (
        "Macs(0.1) could be met: asks for at most 12 of 120 MACs, and 12 is the least that can be left "
        "(fraction 0.1)"
    )
    assert "Params(0.1) asks for at most 13 of 134 parameters, and 17 is the least" in lines[2]
    assert lines[-1] == "Ask for a larger fraction, or relax what holds them."


def test_gradual_steps_approach_all_parts_alike() -> None:
    assert stages(All([Macs(0.25), Params(0.36)], round_to=2), 2) == (
        All([Macs(0.5), Params(0.6)], round_to=2),
        All([Macs(0.25), Params(0.36)], round_to=2),
    )


def test_ratios_beyond_all_parts_are_refused_and_beyond_one_are_not(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    scores = scored(graph_of(8, 20, 4))
    ratios = {"0": 0.7}
    with pytest.raises(BudgetError, match=r"`ratios` alone leave a fraction of 0.3, 0.3\d+; lower them"):
        All([Macs(0.6), Params(0.6)], ratios=ratios).choose(scores)
    assert All([Macs(0.6), Params(0.32)], ratios=ratios).choose(scores).sum() == 14


@dataclass(frozen=True)
class Only:
    """Widths that are multiples of `step`."""

    step: int

    def rungs(self, graph: Graph) -> list[np.ndarray]:
        counts = [np.arange(group.size) for group in graph.groups]
        return [c[(group.size - c) % self.step == 0] for c, group in zip(counts, graph.groups, strict=True)]


@dataclass(frozen=True, repr=False)
class Stepped(Macs):
    """MACs with widths of a runtime."""

    step: int = 1

    def widths(self) -> Only:
        return Only(self.step)


def test_widths_pay_by_the_tables_of_all_parts(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    scores = scored(graph_of(8, 24, 4))
    assert 24 - All([Stepped(0.7, 4), Params(0.9)]).choose(scores).sum() == 16
    assert 24 - All([Stepped(0.7, 4), Stepped(0.9, 6)]).choose(scores).sum() == 12


def test_checks_of_all_parts_are_told() -> None:
    @dataclass(frozen=True, repr=False)
    class Promising(Macs):
        def check(self, *_: object) -> str:
            return f"{self.fraction} kept"

    net = nn.ReLU()
    assert All([Promising(0.5), Params(0.5), Promising(0.4)]).check(net, net, (), {}) == "0.5 kept; 0.4 kept"
    assert All([Params(0.5)]).check(net, net, (), {}) is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: All([]), r"All\(\[\]\): at least one cost"),
        (lambda: All([Uniform(0.5)]), r"Uniform\(0.5\) \(Uniform\) is no fraction of a cost"),
        (lambda: All([Macs(0.5), 0.3]), r"0.3 \(float\) is no fraction"),
        (lambda: All("macs"), r"'macs' \(str\) is no fraction"),
        (lambda: All([Macs(0.5, round_to=8)]), r"a limit of its own; give round_to to All"),
        (lambda: All([Macs(0.5, order=by_ratio)]), r"give order to All"),
        (lambda: All([All([Macs(0.5)])]), r"\(All\) is no fraction of a cost"),
        (lambda: All([Macs(0.5)], max_ratio=2), r"max_ratio = 2"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Budget], words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        make()
