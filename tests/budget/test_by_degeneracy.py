"""Ratios in proportion to the degeneracy of layers, under budgets of costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import compressor as cp
from compressor.budget import ByDegeneracy, Bytes, Ladder, Macs, Params, by_ratio
from compressor.budget.limits import Limits
from compressor.core.graph import Graph
from compressor.errors import BudgetError
from compressor.scoring import FilterQuality, Norm, Product, Random, degeneracies, score


def net_of(*spreads: int) -> nn.Sequential:
    """Convolutions of 32 filters whose kernels vary along so many of nine axes, and a last one."""
    layers: list[nn.Module] = []
    for position, axes in enumerate(spreads):
        layer = nn.Conv2d(32 if position else 3, 32, 3, padding=1)
        values = torch.zeros(layer.weight.shape[0] * layer.weight.shape[1], 9)
        values[:, :axes] = torch.randn(len(values), axes, generator=torch.Generator().manual_seed(position))
        layer.weight.data = values.view_as(layer.weight)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(32, 4, 1)).eval()


def graph_of(net: nn.Module) -> Graph:
    return cp.capture(net, torch.zeros(1, 3, 6, 6))


def ratios(graph: Graph, budget: cp.budget.Budget, scorer: cp.Scorer | None = None) -> list[float]:
    removed = budget.choose(score(graph, scorer or Norm()))
    return [float(removed[group.cells[0]].mean()) for group in graph.groups]


def test_every_group_loses_in_proportion_to_its_share() -> None:
    graph = graph_of(net_of(2, 4, 6))
    shares = np.array([own.share for own in degeneracies(graph).groups])
    assert (np.diff(shares) < -0.1).all()
    lost = np.array(ratios(graph, Macs(0.6, order=ByDegeneracy(healthy=0.0))))
    one = lost / shares  # the same up to one channel of 32
    assert (np.abs(one - one.mean()) * shares <= 1 / 32).all()


@pytest.mark.parametrize("budget", [Macs, Params, Bytes])
@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.2])
def test_the_target_is_met_and_no_group_could_have_its_last_step_back(
    budget: type[Macs | Params | Bytes], fraction: float
) -> None:
    graph = graph_of(net_of(2, 4, 9))
    chosen = budget(fraction, order=ByDegeneracy())
    removed = chosen.choose(score(graph, Norm()))
    cost = chosen.cost(graph)
    assert cost.total(removed) <= fraction * cost.total()
    for group in graph.groups:
        own = np.flatnonzero(removed[group.cells[0]])
        if len(own):
            given_back = removed.copy()
            given_back[group.cells[0][own[0]]] = False
            assert cost.total(given_back) > fraction * cost.total()


def test_healthy_lies_between_proportional_and_alike() -> None:
    graph = graph_of(net_of(2, 4, 9))
    strict, half, alike = (ratios(graph, Macs(0.5, order=ByDegeneracy(healthy=h))) for h in (0.0, 0.5, 1.0))
    assert alike == ratios(graph, Macs(0.5, order=by_ratio))
    assert strict[0] > half[0] > alike[0]
    assert strict[2] < half[2] < alike[2]


def test_dead_filters_go_before_everything_else() -> None:
    net = net_of(2, 9, 9)
    with torch.no_grad():
        net[2].weight[[4, 9, 20]] = 0
        net[4].weight[[1, 3]] = 0
    graph = graph_of(net)
    dead = degeneracies(graph).dead
    assert dead.sum() == 5
    few = Macs(0.97, order=ByDegeneracy()).choose(score(graph, FilterQuality()))
    assert (dead & few).sum() == few.sum()
    more = Macs(0.5, order=ByDegeneracy()).choose(score(graph, FilterQuality()))
    assert (dead & more).sum() == 5
    any_other = Product({FilterQuality(terms=("live", "read")): 1, Random(3): 1})
    few = Macs(0.97, order=ByDegeneracy()).choose(score(graph, any_other))
    assert (dead & few).sum() == few.sum()


def test_a_threshold_of_zero_removes_the_dead_and_nothing_else() -> None:
    net = net_of(2, 9, 9)
    with torch.no_grad():
        net[2].weight[[4, 9, 20]] = 0
        net[4].weight[:, 11] = 1e-9
    graph = graph_of(net)
    removed = cp.budget.Threshold(0).choose(score(graph, FilterQuality(terms=("live", "read"))))
    assert removed.sum() == 4
    np.testing.assert_array_equal(removed, degeneracies(graph).dead)


def test_ranks_that_scores_do_not_put_first_are_not_taken_for_dead() -> None:
    net = net_of(9, 9)
    with torch.no_grad():
        net[0].weight[5] = 0
    graph = graph_of(net)
    against = score(graph, Norm()).values.max() - score(graph, Norm()).values
    ladder = Ladder.of(graph, against, Limits(), None)
    assert all((key > 0).all() for key in ByDegeneracy()(ladder))
    for_it = Ladder.of(graph, score(graph, FilterQuality()).values, Limits(), None)
    assert [int((key < 0).sum()) for key in ByDegeneracy()(for_it)] == [1, 0]


def test_limits_hold() -> None:
    graph = graph_of(net_of(2, 4, 9))
    first = graph.groups[0].name.removesuffix(".weight")
    limited = Macs(0.7, order=ByDegeneracy(), max_ratio=0.25, round_to=4)
    assert max(ratios(graph, limited)) <= 0.25
    assert ratios(graph, Macs(0.7, order=ByDegeneracy(), ignore=first))[0] == 0


def test_perceptrons_and_layers_without_a_fault_are_thinned_alike() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    for layer in (net[0], net[2], net[4]):
        layer.weight.data.abs_().clamp_(min=0.5)
    graph = cp.capture(net, torch.zeros(1, 8))
    lost = ratios(graph, Macs(0.5, order=ByDegeneracy()))
    assert lost == ratios(graph, Macs(0.5, order=by_ratio))


def test_gradual_steps_lead_to_the_same_budget() -> None:
    net = net_of(2, 4, 9)
    x = torch.zeros(1, 3, 6, 6)
    small = cp.prune(net, x, scorer=FilterQuality(), budget=Macs(0.5, order=ByDegeneracy()), steps=3)
    assert cp.profile(small, x).macs <= 0.5 * cp.profile(net, x).macs


@pytest.mark.parametrize("options", [{"healthy": -0.1}, {"healthy": 2}, {"epsilon": 0}, {"healthy": "no"}])
def test_wrong_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BudgetError, match="ByDegeneracy"):
        ByDegeneracy(**options)


def test_it_shows_its_options() -> None:
    assert "order=ByDegeneracy(healthy=0.5" in repr(Macs(0.5, order=ByDegeneracy(healthy=0.5)))
