"""What every budget is held to, a user's own included."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest

from compressor.budget import Budget, Ladder, Macs, Uniform
from compressor.core.graph import Graph
from compressor.errors import BudgetError, InputError
from compressor.scoring import Scores


@dataclass(frozen=True, repr=False)
class OneEach(Budget):
    """One rank of every group goes."""

    def lost(self, ladder: Ladder) -> np.ndarray:
        return np.ones_like(ladder.sizes)


def test_a_users_own_budget_needs_one_method(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 8, 6, 2)
    removed = OneEach().choose(scored(graph))
    values = scored(graph).values
    lowest = [group.cells[0][values[group.cells[0]].argmin()] for group in graph.groups]
    assert np.flatnonzero(removed).tolist() == sorted(lowest)


def test_a_users_own_budget_is_held_to_the_limits(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    graph = graph_of(4, 8, 6, 2)
    with pytest.raises(BudgetError, match=r"OneEach.*0\.weight may lose \[0\] ranks \(ignored by"):
        OneEach(ignore="0").choose(scored(graph))
    with pytest.raises(BudgetError, match=r"may lose \[0, 4\] ranks"):
        OneEach(round_to=4).choose(scored(graph))


def test_a_users_own_budget_must_return_a_number_for_each_group(
    graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    class Short(Budget):
        def lost(self, ladder: Ladder) -> np.ndarray:
            return np.zeros(5, dtype=np.int64)

    with pytest.raises(BudgetError, match=r"each of the 2 groups, got shape \[5\]"):
        Short().choose(scored(graph_of(4, 8, 6, 2)))


def test_only_scores_are_taken(graph_of: Callable[..., Graph]) -> None:
    with pytest.raises(InputError, match="a budget needs scores, got Graph"):
        Uniform(0.5).choose(graph_of(4, 8, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("removed", [np.zeros(3, dtype=bool), np.zeros(8, dtype=int)])
def test_what_went_before_is_one_flag_for_each_unit(
    removed: np.ndarray, graph_of: Callable[..., Graph], scored: Callable[..., Scores]
) -> None:
    with pytest.raises(InputError, match="one flag for each of the 8 units"):
        Uniform(0.5).choose(scored(graph_of(4, 8, 2)), removed=removed)


def test_budgets_are_values() -> None:
    budget = Macs(0.5, ignore=["stem.*"], ratios={"a": 0.1})
    assert budget == copy.deepcopy(budget) == pickle.loads(pickle.dumps(budget))
    assert hash(budget) == hash(copy.deepcopy(budget))
    with pytest.raises(FrozenInstanceError):
        budget.fraction = 0.6  # type: ignore[misc]
    assert repr(budget) == "Macs(0.5, ignore=('stem.*',), ratios={'a': 0.1})"


def test_limits_are_keywords() -> None:
    with pytest.raises(TypeError):
        Uniform(0.5, "stem")  # type: ignore[misc]
