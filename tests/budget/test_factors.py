"""Heads and dims of heads share their channels: ratios, counts and limits are of channels."""

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

from compressor.budget import Budget, Global, Macs, Params, Uniform, by_ratio
from compressor.core.graph import Graph, Mask
from compressor.errors import NothingToPruneError, NothingToPruneWarning, UnreachableBudgetError
from compressor.profiling import costs
from compressor.scoring import Scores
from tests.core.transformers import Sizes, group_at, kept_rows, left, lost, transformer, with_rank_more

pytestmark = pytest.mark.filterwarnings("ignore::compressor.errors.NothingToPruneWarning")

Scored = Callable[..., Scores]

NETS = {
    "apart": Sizes(heads=4, dims=6, values=5),
    "narrow heads": Sizes(heads=8, groups=8, dims=3, values=3),
    "key-value heads of two": Sizes(heads=6, groups=3, dims=8, values=4),
    "one key-value head": Sizes(heads=5, groups=1, dims=4, values=7),
    "packed": Sizes("packed", heads=5, dims=8),
    "torch's": Sizes("torch", heads=3, dims=8),
}
GRAPHS: dict[str, Graph] = {}


def graph_named(name: str) -> Graph:
    if name not in GRAPHS:
        GRAPHS[name] = transformer(NETS[name])
    return GRAPHS[name]


def chosen(budget: Budget, scores: Scores) -> Mask:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToPruneWarning)
        return budget.choose(scores)


# -- the groups that share channels --------------------------------------------------------------


def test_heads_are_crossed_with_the_dims_of_queries_and_with_those_of_values() -> None:
    graph = graph_named("apart")
    heads, dims = (group_at(graph, "attentions.0.q.weight", factor) for factor in (0, 1))
    values = group_at(graph, "attentions.0.v.weight", 1)
    at = graph.groups.index
    assert set(graph.crossed) == {(at(heads), at(dims)), (at(heads), at(values))}


def test_a_network_without_factors_has_nothing_crossed(branches: Graph) -> None:
    assert branches.crossed == ()


# -- uniform -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "ratio", "heads", "dims"),
    [
        (Sizes(heads=12, groups=12, dims=64, values=64), 0.5, 3, 21),  # 9 · 43 of 12 · 64: 0.504
        (Sizes(heads=12, groups=12, dims=64, values=64), 0.75, 6, 32),  # a quarter to the row
        (Sizes(heads=4, dims=6, values=6), 0.75, 2, 3),
        (Sizes(heads=3, groups=3, dims=8, values=8), 0.5, 0, 4),  # a third is too coarse a step
        (Sizes(heads=4, dims=6, values=6), 0.1, 0, 0),  # both steps are
        (Sizes(heads=8, groups=8, dims=4, values=4), 0.5, 2, 1),  # dims are the coarser ones here
    ],
)
def test_a_ratio_is_that_of_the_channels(
    sizes: Sizes, ratio: float, heads: int, dims: int, scored: Scored
) -> None:
    graph = transformer(sizes)
    removed = chosen(Uniform(ratio), scored(graph))
    assert lost(removed, group_at(graph, "attentions.0.q.weight", 0)) == heads
    assert lost(removed, group_at(graph, "attentions.0.q.weight", 1)) == dims
    assert lost(removed, group_at(graph, "attentions.0.v.weight", 1)) == dims


@settings(deadline=None, max_examples=60)
@given(percent=st.integers(1, 99), name=st.sampled_from(sorted(NETS)), seed=st.integers(0, 9))
def test_no_axis_loses_more_than_the_ratio_and_none_could_lose_a_rank_more(
    percent: int, name: str, seed: int, scored: Scored
) -> None:
    graph = graph_named(name)
    removed = chosen(Uniform(percent / 100), scored(graph, seed))
    least = Fraction(100 - percent, 100)
    assert min(left(graph, removed).values()) >= least
    for group in graph.groups:
        if lost(removed, group) < group.size - 1:
            assert min(left(graph, with_rank_more(removed, group)).values()) < least


def test_heads_make_up_for_what_rounding_leaves_of_the_dims(scored: Scored) -> None:
    graph = transformer(Sizes(heads=6, groups=6, dims=4, values=4))
    removed = chosen(Uniform(0.5, round_to=4), scored(graph))
    assert lost(removed, group_at(graph, "attentions.0.q.weight", 1)) == 0
    assert lost(removed, group_at(graph, "attentions.0.q.weight", 0)) == 3


def test_heads_that_stay_beside_dims_that_go_are_no_cause_for_a_warning(scored: Scored) -> None:
    graph = transformer(Sizes(heads=3, groups=3, dims=8, values=8, hidden=10))
    with warnings.catch_warnings():
        warnings.simplefilter("error", NothingToPruneWarning)
        assert Uniform(0.3).choose(scored(graph)).any()
    with pytest.warns(NothingToPruneWarning, match=r"3 of 5 groups stay whole.*smallest step 8"):
        Uniform(0.11, round_to=1).choose(scored(graph))


def test_earlier_steps_count_for_the_channels_that_are_gone(scored: Scored) -> None:
    graph = transformer(Sizes(heads=12, groups=12, dims=64, values=64))
    dims = group_at(graph, "attentions.0.q.weight", 1)
    gone = np.zeros(graph.n_units, dtype=bool)
    gone[dims.cells[0][:30]] = True  # 34 of 64 stay: with 3 of 12 heads less it would be 0.398
    removed = Uniform(0.5).choose(scored(graph), removed=gone)
    assert left(graph, removed)["attentions.0.q.weight"] == Fraction(1, 2)
    assert lost(removed, group_at(graph, "attentions.0.q.weight", 0)) == 0


# -- global --------------------------------------------------------------------------------------


def homes(graph: Graph, removed: Mask) -> int:
    """Channels that stay on the axes that groups are named after, counted in the plan."""
    named = {group.name for group in graph.groups}
    return sum(len(keep) for at, (keep, _) in kept_rows(graph, removed).items() if at.split(":")[0] in named)


@settings(deadline=None, max_examples=60)
@given(percent=st.integers(1, 80), name=st.sampled_from(sorted(NETS)), seed=st.integers(0, 9))
def test_global_counts_each_channel_once_and_no_step_more_would_fit(
    percent: int, name: str, seed: int, scored: Scored
) -> None:
    graph = graph_named(name)
    total = homes(graph, np.zeros(graph.n_units, dtype=bool))
    target = math.floor(Fraction(percent, 100) * total)
    removed = chosen(Global(percent / 100), scored(graph, seed))
    assert total - homes(graph, removed) <= target
    for group in graph.groups:
        if lost(removed, group) < group.size - 1:
            assert total - homes(graph, with_rank_more(removed, group)) > target


def test_global_leaves_out_channels_whose_factors_are_all_ignored(scored: Scored) -> None:
    graph = graph_named("apart")
    removed = chosen(Global(0.5, ignore="attentions"), scored(graph))
    # Of the residual stream, which attentions write, nothing may go either: the MLP is what is left.
    assert len(kept_rows(graph, removed)["mlps.0.0.weight"][0]) == 5


# -- limits --------------------------------------------------------------------------------------

BUDGETS: dict[str, Callable[..., Budget]] = {
    "uniform": lambda **limits: Uniform(0.8, **limits),
    "global": lambda **limits: Global(0.6, **limits),
    "macs": lambda **limits: Macs(0.5, **limits),
    "macs by ratio": lambda **limits: Macs(0.5, order=by_ratio, **limits),
    "params": lambda **limits: Params(0.5, **limits),
}


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_all_limits_at_once_hold_for_the_channels_of_attention(data: st.DataObject, scored: Scored) -> None:
    name = data.draw(st.sampled_from(sorted(NETS)), "net")
    make = BUDGETS[data.draw(st.sampled_from(sorted(BUDGETS)), "budget")]
    bound = data.draw(st.sampled_from([0.3, 0.5, 0.8, 1.0]), "max_ratio")
    least = data.draw(st.integers(1, 14), "min_channels")
    step = data.draw(st.sampled_from([1, 2, 4]), "round_to")
    graph, sizes = graph_named(name), NETS[name]
    try:
        scores = scored(graph, data.draw(st.integers(0, 9), "seed"))
        removed = chosen(make(max_ratio=bound, min_channels=least, round_to=step), scores)
    except (UnreachableBudgetError, NothingToPruneError):
        return
    found = kept_rows(graph, removed)
    for name in {group.name for group in graph.groups}:
        own = [(len(keep), size) for at, (keep, size) in found.items() if at.split(":")[0] == name]
        kept, whole = map(sum, zip(*own, strict=True))
        assert kept == whole or kept >= least
    for at, (keep, size) in found.items():
        assert Fraction(size - len(keep), size) <= Fraction(str(bound))
        letter = at[-1] if ":" in at else at.split(".")[-2]
        if letter in "qkv":
            dims = sizes.values if letter == "v" and sizes.kind == "apart" else sizes.dims
            heads, times = np.unique(keep // dims, return_counts=True)
            assert set(times) == {len(keep) // len(heads)}
            assert times[0] == dims or times[0] % step == 0
        elif len(keep) < size:
            assert len(keep) % step == 0


def test_heads_are_not_rounded(scored: Scored) -> None:
    graph = transformer(Sizes(heads=5, groups=5, dims=8, values=8, hidden=16))
    removed = chosen(Uniform(0.4, round_to=4), scored(graph))
    # 4 of 5 heads and 4 of 8 dims are too few, so that dims stay and heads go: 3 of 5.
    assert lost(removed, group_at(graph, "attentions.0.q.weight", 0)) == 2
    assert lost(removed, group_at(graph, "attentions.0.q.weight", 1)) == 0


@pytest.mark.parametrize("budget", [Uniform(0.3), Global(0.3), Macs(0.25), Params(0.25)])
@pytest.mark.parametrize(
    "ratios", [{"*.q": 0.5, "*.v": 0.25}, {"*.v": 0.25, "*.q": 0.5}, {"*.[qkv]": 0.75, "*.v": 0.3}]
)
def test_layers_with_a_ratio_of_their_own_lose_that_of_their_channels(
    budget: Budget, ratios: dict[str, float], scored: Scored
) -> None:
    graph = transformer(Sizes(heads=12, groups=12, dims=64, values=64, hidden=400, width=40))
    shares = left(graph, chosen(replace(budget, ratios=ratios), scored(graph)))
    for letter, ratio in {"q": ratios.get("*.q", 0.75), "v": ratios["*.v"]}.items():
        rest = shares[f"attentions.0.{letter}.weight"]
        assert 0 <= rest - (1 - Fraction(str(ratio))) < Fraction(1, 64)


def test_a_bound_on_the_channels_leaves_room_for_the_finer_factor(scored: Scored) -> None:
    graph = transformer(Sizes(heads=3, groups=3, dims=8, values=8))
    shares = left(graph, chosen(Uniform(0.9, max_ratio=0.5), scored(graph)))
    assert shares["attentions.0.q.weight"] == Fraction(1, 2)


def test_too_many_channels_for_every_head_are_named(scored: Scored) -> None:
    graph = transformer(Sizes(heads=4, dims=6, values=6, hidden=16, width=16))
    with pytest.warns(
        NothingToPruneWarning, match=r"attentions.0.q.weight \(round_to = 8 of every 6 channels\)"
    ):
        Uniform(0.5, round_to=8).choose(scored(graph))


# -- fractions -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_fractions_are_met_and_no_group_can_have_a_rank_back(data: st.DataObject, scored: Scored) -> None:
    graph = graph_named(data.draw(st.sampled_from(sorted(NETS)), "net"))
    percent = data.draw(st.integers(20, 99), "percent")
    kind, which = data.draw(st.sampled_from([(Macs, "macs"), (Params, "params")]), "kind")
    order = data.draw(st.sampled_from([by_ratio, None]), "order")
    scores = scored(graph, data.draw(st.integers(0, 9), "seed"))
    budget = kind(percent / 100) if order is None else kind(percent / 100, order=order)
    removed = chosen(budget, scores)
    target = Fraction(percent, 100) * getattr(costs(graph), which)
    assert getattr(costs(graph, removed), which) <= target
    for group in graph.groups:
        less = removed.copy()
        for cell in group.cells:
            gone = cell[removed[cell]]
            less[gone[np.argsort(scores.values[gone], kind="stable")][-1:]] = False
        assert not lost(removed, group) or getattr(costs(graph, less), which) > target


def test_by_ratio_thins_the_channels_of_attention_as_those_of_other_layers(scored: Scored) -> None:
    graph = transformer(Sizes(heads=12, groups=12, dims=64, values=64, hidden=400, width=60))
    shares = left(graph, chosen(Macs(0.4, order=by_ratio), scored(graph)))
    found = [shares[f"{at}.weight"] for at in ("attentions.0.q", "attentions.0.v", "mlps.0.0", "embed")]
    assert max(found) - min(found) < Fraction(1, 12)
