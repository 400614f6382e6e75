"""The choices a budget has: for each group a ladder of ranks, the least important first.

Within every cell the lowest scores go first, ties by index, so that counts are exact whatever the
scores. Rank t of a group removes the t-th lowest unit of each of its cells; its score is their
mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from compressor.budget.limits import Allowance, Limits, allowances
from compressor.core.graph import Graph, Group
from compressor.errors import BudgetError

__all__ = ["Ladder", "Order", "Steps", "by_ratio", "by_score", "check_order"]

Floats = npt.NDArray[np.float64]
Lost = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ladder:
    """Groups as ladders of ranks [n_groups], with the rungs that limits allow.

    `order[g]` [n_cells, size] holds the units of group g, column t those of rank t; `scores[g]`
    [size] the score of each rank, ascending; `allowances[g].levels` the rungs; `before[g]` how many
    ranks went in earlier steps.
    """

    graph: Graph
    order: tuple[npt.NDArray[np.int64], ...]
    scores: tuple[Floats, ...]
    allowances: tuple[Allowance, ...]
    before: Lost

    @classmethod
    def of(cls, graph: Graph, values: Floats, limits: Limits, removed: Mask | None) -> Ladder:
        """The ladders for unit scores `values` [n_units]; `removed` [n_units] units went before."""
        gone = np.zeros(graph.n_units, dtype=bool) if removed is None else removed
        order = tuple(_ranked(group, values, gone) for group in graph.groups)
        scores = tuple(values[cells].mean(axis=0) for cells in order)
        before = np.array([gone[group.cells[0]].sum() for group in graph.groups], dtype=np.int64)
        held = zip(allowances(graph, limits), before.tolist(), strict=True)
        return cls(graph, order, scores, tuple(_from(a, lost) for a, lost in held), before)

    @cached_property
    def start(self) -> Lost:
        """The fewest ranks each group may lose."""
        return np.array([a.levels[0] for a in self.allowances], dtype=np.int64)

    @cached_property
    def end(self) -> Lost:
        """The most ranks each group may lose."""
        return np.array([a.levels[-1] for a in self.allowances], dtype=np.int64)

    @cached_property
    def sizes(self) -> Lost:
        """How many ranks each group has."""
        return np.array([group.size for group in self.graph.groups], dtype=np.int64)

    @cached_property
    def factors(self) -> Lost:
        """Of how many factors that may shrink the channels of each group are at most."""
        moving = [len(allowance.levels) > 1 for allowance in self.allowances]
        most = np.ones(len(self.order), dtype=np.int64)
        for product in self.graph.crossed:
            np.maximum.at(most, np.array(product), sum(moving[group] for group in product))
        return most

    def mask(self, lost: Lost) -> Mask:
        """The removed units [n_units] when each group loses `lost` [n_groups] ranks."""
        removed = np.zeros(self.graph.n_units, dtype=bool)
        for cells, count in zip(self.order, lost, strict=True):
            removed[cells[:, :count]] = True
        return removed

    def steps(self, order: Order) -> Steps:
        """Every rung above the start, over all groups, in the order in which to take them."""
        keys = [np.maximum.accumulate(key) for key in self._keys(order)]
        levels = [allowance.levels[1:] for allowance in self.allowances]
        groups = [np.full(len(rungs), g, dtype=np.int64) for g, rungs in enumerate(levels)]
        group, level, key = _flat(groups), _flat(levels), np.concatenate([*keys, np.empty(0)])
        below = _flat([allowance.levels[:-1] for allowance in self.allowances])
        # Of equal keys the group that lost less goes first: constant scores spread evenly.
        part = level / self.sizes[group] if len(group) else key
        ranking = np.lexsort((group, part, key))
        return Steps(group[ranking], below[ranking], level[ranking])

    def _keys(self, order: Order) -> list[Floats]:
        """What an order says; raises BudgetError unless that is one number for each step of each group."""
        keys = [np.asarray(key, dtype=np.float64) for key in order(self)]
        steps = [len(allowance.levels) - 1 for allowance in self.allowances]
        name = getattr(order, "__name__", repr(order))
        if [key.shape for key in keys] != [(count,) for count in steps]:
            raise BudgetError(
                f"the order {name} gives keys of shapes {[list(key.shape) for key in keys]}, expected one "
                f"key for each step above the first level of each group: {steps}"
            )
        bad = [g for g, key in enumerate(keys) if np.isnan(key).any()]
        if bad:
            raise BudgetError(
                f"the order {name} gives {self.graph.groups[bad[0]].name} keys that are no numbers (NaN), "
                "which puts its steps nowhere; look for a division by zero in it"
            )
        return keys


@dataclass(frozen=True, eq=False)
class Steps:
    """Steps [n_steps]: `group` goes from having lost `below` ranks to having lost `level`."""

    group: Lost
    below: Lost
    level: Lost

    def __len__(self) -> int:
        return len(self.group)

    def taken(self, count: int, start: Lost) -> Lost:
        """The ranks lost [n_groups] after the first `count` steps from `start`."""
        lost = start.copy()
        np.maximum.at(lost, self.group[:count], self.level[:count])
        return lost


Order = Callable[[Ladder], Sequence[Floats]]


def check_order(what: str, order: object) -> None:
    """Raise BudgetError unless `order` can be called with a ladder."""
    if not callable(order) or isinstance(order, type):
        raise BudgetError(
            f"{what}(order={order!r}): a function of a ladder is expected, such as budget.by_ratio, or an "
            "object that can be called with one, such as budget.ByDegeneracy()"
        )


def by_score(ladder: Ladder) -> Sequence[Floats]:
    """For each group the key of every step: the highest score among the ranks that go with it.

    Taking steps in this order is one threshold for the whole model, what a group keeps rounded up.
    An order of your own is such a function: `Macs(0.5, order=mine)`.
    """
    return [s[a.levels[1:] - 1] for s, a in zip(ladder.scores, ladder.allowances, strict=True)]


def by_ratio(ladder: Ladder) -> Sequence[Floats]:
    """For each group the key of every step: the removed share of the group after it.

    Taking steps in this order thins all groups alike; scores only decide within a group. Of k
    factors of the same channels each keeps the k-th root of what others keep.
    """
    keys = []
    for size, allowance, many in zip(ladder.sizes, ladder.allowances, ladder.factors, strict=True):
        share = allowance.levels[1:] / size
        keys.append(share if many == 1 else 1 - (1 - share) ** many)
    return keys


def _ranked(group: Group, values: Floats, gone: Mask) -> npt.NDArray[np.int64]:
    """The units of each cell in the order they go [n_cells, size]; those `gone` come first."""
    # lexsort is stable: the lower index of equal scores goes first.
    ordered = [cell[np.lexsort((values[cell], ~gone[cell]))][: group.size] for cell in group.cells]
    return np.stack(ordered)


def _from(allowance: Allowance, lost: int) -> Allowance:
    """The rungs from `lost` on; what already went stays away, whatever the limits say."""
    if lost == 0:
        return allowance
    if len(allowance.levels) == 1:
        return replace(allowance, levels=np.maximum(allowance.levels, lost))
    further = allowance.levels[allowance.levels > lost]
    return replace(allowance, levels=np.insert(further, 0, lost))


def _flat(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate([*parts, np.empty(0, dtype=np.int64)])
