"""Limits hold for every budget, and a limit that fits nothing is refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.budget import Budget, Global, Macs, Params, Uniform, by_ratio
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.errors import (
    BudgetError,
    NothingToPruneError,
    NothingToPruneWarning,
    UnreachableBudgetError,
)
from compressor.scoring import Scores

BUDGETS: dict[str, Callable[..., Budget]] = {
    "uniform": lambda **limits: Uniform(0.9, **limits),
    "global": lambda **limits: Global(0.4, **limits),
    "macs": lambda **limits: Macs(0.9, **limits),
    "macs by ratio": lambda **limits: Macs(0.9, order=by_ratio, **limits),
    "params": lambda **limits: Params(0.8, **limits),
}
every_budget = pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS.keys())


def kept_channels(graph: Graph, removed: np.ndarray) -> dict[str, int]:
    """Rows that every weight keeps, counted in the plan."""
    shapes = {name: shape[0] for name, shape in graph.signature.tensors if len(shape) > 1}
    cuts = [cut for cut in graph.plan(removed).cuts if cut.axis == 0 and cut.tensor in shapes]
    shapes |= {cut.tensor: len(cut.keep) for cut in cuts}
    return shapes


@every_budget
def test_ignored_layers_keep_all_their_outputs(
    budget: Callable[..., Budget], branches: Graph, scored: Callable[..., Scores]
) -> None:
    model = branches.model
    for ignore in (
        "body.one",
        "body.one.*",
        "body.one.weight",
        ["*.one"],
        model.body["one"],
        [model.body["one"]],
    ):
        removed = budget(ignore=ignore).choose(scored(branches))
        assert kept_channels(branches, removed)["body.one.weight"] == 24
        assert removed.any()


@every_budget
def test_ignoring_a_container_or_a_class_ignores_all_in_it(
    budget: Callable[..., Budget], branches: Graph, scored: Callable[..., Scores]
) -> None:
    for ignore in ("body", nn.ModuleDict, branches.model.body):
        kept = kept_channels(branches, budget(ignore=ignore).choose(scored(branches)))
        assert (kept["body.one.weight"], kept["body.two.weight"]) == (24, 16)
        assert kept["stem.0.weight"] == 16  # the residual sum couples it with body.two


def test_what_an_ignored_layer_reads_may_shrink(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 8, 6, 2)
    plan = graph.plan(Uniform(0.5, ignore="2").choose(scored(graph)))
    cuts = {(cut.tensor, cut.axis): len(cut.keep) for cut in plan.cuts}
    assert cuts == {("0.weight", 0): 4, ("0.bias", 0): 4, ("2.weight", 1): 4}


@every_budget
@pytest.mark.parametrize("max_ratio", [0.5, {"*": 0.5}, {"*": 0.9, "*on*": 0.5, "stem": 0.5}])
def test_no_group_loses_more_than_its_largest_ratio(
    budget: Callable[..., Budget], max_ratio: object, branches: Graph, scored: Callable[..., Scores]
) -> None:
    kept = kept_channels(branches, budget(max_ratio=max_ratio).choose(scored(branches)))
    assert kept["body.one.weight"] >= 12
    assert kept["stem.0.weight"] >= 8


@every_budget
def test_least_widths_hold(
    budget: Callable[..., Budget], branches: Graph, scored: Callable[..., Scores]
) -> None:
    removed = budget(min_channels=10).choose(scored(branches))
    kept = kept_channels(branches, removed)
    del kept["head.weight"]
    assert min(kept.values()) >= 10


@every_budget
@pytest.mark.parametrize("step", [2, 4, 8])
def test_widths_are_multiples_or_whole(
    budget: Callable[..., Budget], step: int, branches: Graph, scored: Callable[..., Scores]
) -> None:
    whole = {name: shape[0] for name, shape in branches.signature.tensors if len(shape) > 1}
    for name, kept in kept_channels(branches, budget(round_to=step).choose(scored(branches))).items():
        assert kept % step == 0 or kept == whole[name]


@pytest.mark.parametrize(
    "budget", [Uniform(0.9), Global(0.4), Macs(0.42), Macs(0.42, order=by_ratio), Params(0.4)]
)
def test_layers_with_a_ratio_of_their_own_lose_exactly_that(
    budget: Budget, branches: Graph, scored: Callable[..., Scores]
) -> None:
    budget = replace(budget, ratios={"body": 0.5, "body.one": 0.25, "point": 0})
    kept = kept_channels(branches, budget.choose(scored(branches)))
    assert (kept["body.one.weight"], kept["body.two.weight"], kept["point.weight"]) == (18, 8, 12)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_all_limits_at_once_hold_for_every_budget(
    data: st.DataObject, branches: Graph, scored: Callable[..., Scores]
) -> None:
    ratio = data.draw(st.sampled_from([0.05, 0.3, 0.5, 0.77, 0.95]), "ratio")
    make = data.draw(st.sampled_from([Uniform, Global, Macs, Params]), "budget")
    bound = data.draw(st.sampled_from([0.2, 0.5, 0.8, 1.0]), "max_ratio")
    least = data.draw(st.integers(1, 14), "min_channels")
    step = data.draw(st.sampled_from([1, 2, 4, 8]), "round_to")
    ignore = data.draw(st.sets(st.sampled_from(["stem", "body.one", "grouped", "point"])), "ignore")
    budget = make(ratio, max_ratio=bound, min_channels=least, round_to=step, ignore=ignore)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingToPruneWarning)
            removed = budget.choose(scored(branches, data.draw(st.integers(0, 9), "seed")))
    except (UnreachableBudgetError, NothingToPruneError):
        return
    whole = {name: shape[0] for name, shape in branches.signature.tensors if len(shape) > 1}
    for name, kept in kept_channels(branches, removed).items():
        if kept < whole[name]:
            assert kept >= max(least, 1)
            assert kept % step == 0
            assert Fraction(whole[name] - kept, whole[name]) <= Fraction(str(bound))
            assert name.removesuffix(".weight") not in ignore
    branches.plan(removed)  # legal: cells of a group lose equally many


def test_rounding_counts_pinned_channels_of_the_same_tensor() -> None:
    class Half(nn.Module):
        """Five of the 21 channels are an output of the model; 16 may go."""

        def __init__(self) -> None:
            super().__init__()
            self.both, self.tail = nn.Linear(4, 21), nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out = self.both(x)
            return out[:, :5], self.tail(out[:, 5:])

    graph = capture(Half(), torch.zeros(1, 4))
    scores = Scores(graph, np.arange(graph.n_units, dtype=np.float64), "by hand")
    kept = kept_channels(graph, Uniform(0.5, round_to=8).choose(scores))
    assert kept["both.weight"] == 16  # 5 + 11, not 5 + 8


class Gated(nn.Module):
    """48 hidden channels, each of them two rows of `up` and one column of `down`."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 96), nn.Linear(48, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(value * gate.sigmoid())


class Last(nn.Module):
    """64 hidden units, each of them four rows of the weights and one column."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(16, 64, batch_first=True), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize(("step", "hidden", "units"), [(8, 32, 40), (16, 32, 48)])
def test_gates_are_rounded_by_what_they_make_not_by_their_rows(step: int, hidden: int, units: int) -> None:
    budget = Uniform(0.4, round_to=step)
    gated, last = Gated(), Last()
    small = apply(gated, chosen_plan(gated, torch.zeros(1, 16), budget))
    assert small.down.in_features == hidden and small.up.out_features == 2 * hidden
    small = apply(last, chosen_plan(last, torch.zeros(1, 3, 16), budget))
    assert small.lstm.hidden_size == units


def chosen_plan(net: nn.Module, x: torch.Tensor, budget: Budget) -> Plan:
    graph = capture(net, x)
    scores = Scores(graph, np.arange(graph.n_units, dtype=np.float64), "by hand")
    return graph.plan(budget.choose(scores))


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"ignore": "body.on"}, "'body.on' matches no layer.*did you mean 'body.one'"),
        ({"ignore": "xyz*"}, r"'xyz\*' matches no layer.*its names look like"),
        ({"ignore": nn.LSTM}, "the model has no LSTM; it has .*Conv2d"),
        ({"ignore": nn.ReLU}, "ReLU has no parameters"),
        ({"ignore": nn.Conv2d(3, 16, 3)}, "this Conv2d is no part of the captured model"),
        ({"ignore": [3]}, r"ignore takes name patterns.*got 3 \(int\)"),
        ({"ignore": 3}, "ignore = 3"),
        ({"ignore": None}, "ignore = None"),
        ({"max_ratio": {"layer9": 0.5}}, "max_ratio: 'layer9' matches no layer"),
        ({"ratios": {"layer9": 0.5}}, "ratios: 'layer9' matches no layer"),
        ({"ratios": {"head": 0.5}}, "channels cannot be removed at all"),
        ({"ratios": {"point": 0.5}, "ignore": "point"}, "`ignore` leaves alone"),
        ({"ratios": {"point": 0.5, "*": 0.2}}, r"no effect, because the later '\*'"),
        ({"ratios": {"point": 0.5}, "max_ratio": 0.4}, "contradicts max_ratio = 0.4"),
    ],
)
def test_a_limit_that_fits_no_layer_is_refused(
    limits: dict, text: str, branches: Graph, scored: Callable[..., Scores]
) -> None:
    with pytest.raises(BudgetError, match=text):
        Uniform(0.5, **limits).choose(scored(branches))


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_ratio": 0}, "max_ratio = 0: .*0 < max_ratio <= 1"),
        ({"max_ratio": 1.5}, "max_ratio = 1.5"),
        ({"max_ratio": math.nan}, "max_ratio = nan"),
        ({"max_ratio": {"a": -0.1}}, r"max_ratio\['a'\] = -0.1"),
        ({"max_ratio": {3: 0.1}}, "name patterns as keys, got 3"),
        ({"ratios": {"a": 1.0}}, r"ratios\['a'\] = 1"),
        ({"ratios": {"a": "0.5"}}, r"ratios\['a'\] = '0.5' \(str\)"),
        ({"ratios": 0.5}, "a mapping from name pattern to ratio"),
        ({"min_channels": 0}, "min_channels = 0"),
        ({"min_channels": 2.5}, "min_channels = 2.5"),
        ({"round_to": True}, "round_to = True"),
        ({"round_to": -8}, "round_to = -8"),
    ],
)
@every_budget
def test_nonsense_is_refused_when_the_budget_is_made(
    budget: Callable[..., Budget], limits: dict, text: str
) -> None:
    with pytest.raises(BudgetError, match=text):
        budget(**limits)


@every_budget
def test_when_all_is_ignored_the_error_says_so(
    budget: Callable[..., Budget], branches: Graph, scored: Callable[..., Scores]
) -> None:
    with pytest.raises(NothingToPruneError, match=r"no channel of Branches may be.*groups: ignored by '\*'"):
        budget(ignore="*").choose(scored(branches))


@every_budget
def test_when_all_is_pinned_the_error_says_why(budget: Callable[..., Budget]) -> None:
    graph = capture(nn.Linear(3, 4), torch.zeros(1, 3))
    with pytest.raises(NothingToPruneError, match="output of the model"):
        budget().choose(Scores(graph, np.zeros(0), "by hand"))


def test_groups_too_narrow_to_round_are_named(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 6, 16, 2)
    with pytest.warns(NothingToPruneWarning, match=r"1 groups stay whole.*0\.weight \(round_to = 8 of 6"):
        removed = Uniform(0.5, round_to=8).choose(scored(graph))
    assert removed.sum() == 8


def test_a_ratio_too_small_for_any_channel_of_its_layer_is_named(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 6, 16, 2)
    with pytest.warns(NothingToPruneWarning, match=r"ratios\['0'\] = 0.1, less than its smallest"):
        removed = Uniform(0.5, ratios={"0": 0.1}).choose(scored(graph))
    assert removed.sum() == 8


# -- state ---------------------------------------------------------------------------------------


def test_budgets_keep_no_reference_to_what_the_user_gave() -> None:
    ratios, ignore = {"a": 0.5}, ["b"]
    budget = Uniform(0.5, ratios=ratios, ignore=ignore)
    ratios["a"], ratios["c"] = 0.1, 0.2
    ignore.append("d")
    assert budget == Uniform(0.5, ratios={"a": 0.5}, ignore="b")


def test_budgets_share_no_defaults_and_choosing_changes_none(
    branches: Graph, graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    assert Uniform(0.5).ratios is not Uniform(0.5).ratios
    budget = Macs(0.5, ignore="*weight")
    with pytest.raises(NothingToPruneError):
        budget.choose(scored(branches))
    other = Macs(0.5)
    first = other.choose(scored(branches))
    other.choose(scored(graph_of(4, 8, 2)))
    assert (other.choose(scored(branches)) == first).all()
