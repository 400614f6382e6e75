"""Pruning in several steps ends where one step ends, and never brings anything back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.api import prune
from compressor.budget import Budget, Global, Ladder, Macs, Params, Step, Uniform, next_step, stages
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.core.verify import verify
from compressor.errors import BudgetError, NothingToPruneWarning
from compressor.profiling import costs
from compressor.scoring import DEFAULT, Norm, Scores, score
from tests.core.transformers import Sizes, Transformer, example, group_at, left, lost

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
    inputs: Tensor = x,
) -> tuple[Graph, list[Step], nn.Module]:
    original = capture(model, inputs)
    taken: list[Step] = []
    for stage in stages(budget, steps):
        removed = taken[-1].removed if taken else None
        step = next_step(stage, scorer(capture(model, inputs)), original=original, removed=removed)
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
    with pytest.raises(BudgetError, match=r"not what `removed` leaves of `original`: .*16.*, found \[8"):
        next_step(Uniform(0.7), scores, original=branches)


# -- heads and dims ------------------------------------------------------------------------------

HEADS = {
    "apart": Sizes(heads=4, dims=9, values=8, layers=2),
    "packed": Sizes("packed", heads=4, dims=6, layers=2),
    "torch's": Sizes("torch", heads=4, dims=8, layers=2),
    "key-value heads of two": Sizes(heads=4, groups=2, dims=6, values=8),
}


@pytest.mark.parametrize("net", HEADS)
@pytest.mark.parametrize(
    "budget", [Uniform(0.7), Global(0.6), Macs(0.4), Params(0.3), Uniform(0.6, max_ratio=0.4)]
)
@pytest.mark.filterwarnings("ignore::compressor.errors.NothingToPruneWarning")
def test_attention_ends_at_the_same_budget_and_the_plans_compose(budget: Budget, net: str) -> None:
    torch.manual_seed(3)
    model = Transformer(HEADS[net]).eval()
    original, taken, small = walk(model, budget, 3, lambda g: score(g, Norm()), spread, example())
    whole: Plan | None = None
    for step in taken:
        whole = step.plan if whole is None else step.plan.after(whole)
        expected = original.plan(step.removed)
        assert set(whole.cuts) == set(expected.cuts)
        assert set(whole.sizes) == set(expected.sizes)
    assert costs(capture(small, example())).macs == costs(original, taken[-1].removed).macs
    ends = costs(original, taken[-1].removed)
    if isinstance(budget, Macs | Params):
        name = "macs" if isinstance(budget, Macs) else "params"
        assert getattr(ends, name) <= Fraction(str(budget.fraction)) * getattr(costs(original), name)
    if isinstance(budget, Uniform):
        most = min(budget.ratio, budget.max_ratio) if isinstance(budget.max_ratio, float) else budget.ratio
        shares = left(original, taken[-1].removed)
        assert min(shares.values()) >= 1 - Fraction(str(most))
        assert min(s for name, s in shares.items() if "attention" in name) < 1 - Fraction(
            str(most)
        ) + Fraction(1, 5)


@pytest.mark.parametrize("factor", [0, 1])
def test_a_factor_of_which_one_unit_is_left_is_none_any_more(factor: int) -> None:
    """One head left: the next capture sees dims only. One dim of queries left: it sees heads only."""
    original = capture(Transformer(Sizes(heads=3, groups=3, dims=4, values=4)).eval(), example())
    group = group_at(original, "attentions.0.q.weight", factor)
    gone = np.zeros(original.n_units, dtype=bool)
    gone[group.cells[0][1:]] = True
    small = apply(original.model, original.plan(gone))
    now = capture(small, example())
    axis = next(a for a in now.axes if (a.tensor, a.axis) == ("attentions.0.q.weight", 0))
    assert axis.units.ndim == 1
    step = next_step(Macs(0.2), score(now, Norm()), original=original, removed=gone)
    assert lost(step.removed, group) == group.size - 1
    assert costs(original, step.removed).macs <= Fraction(1, 5) * costs(original).macs
    apply(small, step.plan)
    assert set(step.plan.after(original.plan(gone)).cuts) == set(original.plan(step.removed).cuts)


def proved(model: nn.Module, budget: Budget, steps: int, *inputs: Tensor) -> nn.Module:
    """The model after a gradual pruning in which every step is proved against the original."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToPruneWarning)
        return prune(model, *inputs, budget=budget, steps=steps)


def test_sizes_that_became_equal_between_two_steps_go_on_their_own() -> None:
    """Found by random networks: with two heads left of three, heads and dims of values look like one size."""
    sizes = Sizes(kind="apart", heads=3, dims=1, values=2, groups=1, hidden=1, layers=1, width=2)
    torch.manual_seed(0)
    model = Transformer(sizes).eval()
    small = proved(model, Macs(0.5), 2, example())
    assert costs(capture(small, example())).macs <= costs(capture(model, example())).macs / 2


def test_a_convolution_with_one_channel_left_for_each_group_goes_on() -> None:
    """Found by random networks: the weight of a transposed convolution is split by groups only before."""
    torch.manual_seed(0)
    grouped = nn.ConvTranspose2d(4, 8, 3, padding=1, groups=2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), grouped, nn.Conv2d(8, 2, 3, padding=1)).eval()
    small = proved(net, Uniform(0.75), 2, torch.zeros(1, 3, 6, 6))
    # Half of the inputs, one for each group, and a quarter of the outputs, as many for each group.
    assert tuple(small.get_parameter("1.weight").shape) == (2, 1, 3, 3)


def test_groups_that_the_present_model_holds_lose_no_more() -> None:
    """Of two dims of values left none can go, as torch takes another way for axes of length one."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(8, 32), nn.Linear(32, 3)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            head: Tensor = self.head(self.layer(self.stem(x)))
            return head

    torch.manual_seed(0)
    model, inputs = Encoder().eval(), torch.randn(2, 5, 8)
    original = capture(model, inputs)
    reader = next(a for a in original.axes if (a.tensor, a.axis) == ("layer.self_attn.out_proj.weight", 1))
    dims = original.groups[original.group_of[reader.units[-1, 0]]]
    gone = np.zeros(original.n_units, dtype=bool)
    gone[dims.cells[0][2:]] = True
    small = apply(model, original.plan(gone))
    step = next_step(Global(0.6), score(capture(small, inputs), DEFAULT), original=original, removed=gone)
    assert lost(step.removed, dims) == dims.size - 2
    assert step.removed.sum() > gone.sum()
    verify(model, apply(small, step.plan), original.plan(step.removed), inputs)
    with pytest.raises(BudgetError, match=r"cannot be met for .*can no longer go"):
        ratios = {"layer.self_attn": 0.9}
        next_step(
            Global(0.6, ratios=ratios),
            score(capture(small, inputs), DEFAULT),
            original=original,
            removed=gone,
        )
