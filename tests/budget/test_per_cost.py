"""Steps in the order of score for each MAC."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import compressor as cp
from compressor.budget import All, Ladder, Macs, by_score, by_score_per_mac
from compressor.budget.ladder import Order
from compressor.budget.limits import Limits
from compressor.errors import BudgetError
from compressor.scoring import Scores


def two_layers() -> nn.Sequential:
    """Per channel 3 + 2 MACs at each of 16 places in group 0, 2 + 6 at one place in group 5."""
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.AvgPool2d(4), nn.Flatten()),
        *(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 6)),
    )


def test_keys_are_scores_over_the_macs_of_a_channel() -> None:
    graph = cp.capture(two_layers(), torch.ones(1, 3, 4, 4))
    values = np.arange(1.0, graph.n_units + 1)
    ladder = Ladder.of(graph, values, Limits(ignore=("2",)), None)
    keys = dict(zip([group.name for group in graph.groups], by_score_per_mac(ladder), strict=True))
    by_name = dict(zip([group.name for group in graph.groups], ladder.scores, strict=True))
    np.testing.assert_allclose(keys["0.weight"], by_name["0.weight"][:3] / (16 * (3 + 2)))
    np.testing.assert_allclose(keys["5.weight"], by_name["5.weight"][:3] / (2 + 6))


def test_of_equal_scores_those_that_free_more_go_first() -> None:
    graph = cp.capture(two_layers(), torch.ones(1, 3, 4, 4))
    wide = graph.group_of == [group.name for group in graph.groups].index("0.weight")
    scores = Scores(graph, np.where(wide, 2.0, 1.0), "by hand")
    by_cost = Macs(0.98, order=by_score_per_mac, ignore="2").choose(scores)
    assert by_cost[wide].sum() == by_cost.sum() == 1  # 2 for 80 MACs instead of 1 for 8
    plain = Macs(0.98, order=by_score, ignore="2").choose(scores)
    assert plain[~wide].sum() == plain.sum() == 1


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (lambda ladder: [1.0] * len(ladder.allowances), r"order <lambda> gives keys of shapes \[\[\], \[\]"),
        (lambda ladder: [np.zeros(1) for _ in ladder.allowances], r"keys of shapes \[\[1\], .*: \[3, "),
        (
            lambda ladder: [np.full(len(a.levels) - 1, np.nan) for a in ladder.allowances],
            "0.weight keys .*NaN",
        ),
    ],
    ids=["numbers", "too few", "NaN"],
)
def test_an_order_that_says_too_little_is_refused(order: Order, words: str) -> None:
    scores = cp.score(cp.capture(two_layers(), torch.ones(1, 3, 4, 4)), cp.scoring.Norm())
    with pytest.raises(BudgetError, match=words):
        Macs(0.5, order=order).choose(scores)


@pytest.mark.parametrize("order", ["by_ratio", None, cp.budget.ByDegeneracy])
def test_an_order_is_something_that_can_be_called(order: object) -> None:
    for make in (lambda: Macs(0.5, order=order), lambda: All([Macs(0.5)], order=order)):  # type: ignore[arg-type]
        with pytest.raises(
            BudgetError, match=r"a function of a ladder is expected, such as budget\.by_ratio"
        ):
            make()
