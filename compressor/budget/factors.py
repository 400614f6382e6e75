"""Channels of several factors, heads times dims of heads: how one ratio is shared among their groups.

A channel goes when any of its factors does, so what stays of the channels is a product of what stays
of the groups, see `Graph.crossed`. Half of the heads and half of the dims would be three quarters.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from itertools import chain

import numpy as np
import numpy.typing as npt

from compressor.core.graph import Graph, Group
from compressor.profiling.cost import Cost
from compressor.profiling.counting import RemovalOrder, Term, products

__all__ = ["Lost", "Product", "channels", "factors_of", "partners", "shared", "widths"]

Lost = npt.NDArray[np.int64]
Product = tuple[int, ...]


def factors_of(graph: Graph) -> frozenset[int]:
    """The groups (positions) whose channels have other factors, too."""
    return frozenset(chain.from_iterable(graph.crossed))


def partners(graph: Graph, position: int) -> frozenset[int]:
    """The groups (positions) that are other factors of the channels of a group."""
    met = chain.from_iterable(product for product in graph.crossed if position in product)
    return frozenset(met) - {position}


def widths(graph: Graph) -> dict[Product, int]:
    """For the channels of axes that groups of several factors are named after: how many a group has.

    Of the groups of a product the least number.
    """
    found: dict[Product, int] = {}
    padded = np.append(graph.group_of, -1)
    for position in factors_of(graph):
        group = graph.groups[position]
        owners = padded[np.atleast_2d(graph.axes[_home(graph, group)].units)]
        for column in np.unique(owners[:, (owners == position).any(0)], axis=1).T.tolist():
            product = tuple(g for g in column if g >= 0)
            width = group.size * group.channels
            found[product] = min(width, found.get(product, width))
    return found


def shared(graph: Graph, rungs: Sequence[Lost], least: Mapping[Product, Fraction]) -> Lost:
    """The ranks lost [n_groups] when at least `least[product]` of the channels of every product stay.

    `rungs[g]` are the numbers of ranks that group g may lose, ascending; groups that are in no product
    lose the first. The group of the fewest ranks goes first, and takes such a share that all groups
    of a product could take the same: of k groups, what stays is the k-th root. It is rounded so that
    more stays, and the finer groups make up for it; what they leave in their turn, because of their
    own rungs, the others take in a second round. What stays is never less than `least`, unless the
    first rungs ask for it.
    """
    sharing = _Sharing(graph, rungs, least)
    groups = graph.groups
    order = sorted(sharing.products, key=lambda g: (groups[g].size, -groups[g].channels, g))
    for position in (*order, *(p for p in order if sharing.products[p] != [(p,)])):
        sharing.settle(position)
    return np.asarray(sharing.lost)


class _Sharing:
    """Which groups have been settled so far, and at what."""

    def __init__(self, graph: Graph, rungs: Sequence[Lost], least: Mapping[Product, Fraction]) -> None:
        self.lost = np.array([levels[0] for levels in rungs], dtype=np.int64)
        self.products: dict[int, list[Product]] = {}
        for product in least:
            for position in set(product):
                self.products.setdefault(position, []).append(product)
        # A group that cannot move leaves its share to the others.
        self.unsettled = {position for position in self.products if len(rungs[position]) > 1}
        self._rungs, self._sizes, self._least = rungs, [group.size for group in graph.groups], least

    def settle(self, position: int) -> None:
        """The highest rung of a group that leaves enough, whatever the unsettled ones still take."""
        rungs = self._rungs[position]
        products = self.products[position]
        if products == [(position,)]:
            most = math.floor((1 - self._least[position,]) * self._sizes[position])
            fitting = int(np.searchsorted(rungs, most, side="right"))
        else:
            fitting = bisect_right(
                range(len(rungs)),
                False,
                key=lambda i: not all(self._leaves_enough(position, int(rungs[i]), p) for p in products),
            )
        self.lost[position] = max(self.lost[position], rungs[max(0, fitting - 1)])
        self.unsettled.discard(position)

    def _leaves_enough(self, position: int, level: int, product: Product) -> bool:
        stays = 1 - Fraction(level, self._sizes[position])
        others = [other for other in product if other != position]
        rest = math.prod((self._kept(o) for o in others if o not in self.unsettled), start=Fraction(1))
        open_ = [other for other in others if other in self.unsettled]
        mine = len(product) - len(others)
        least = self._least[product]
        alike = stays ** (mine + len(open_)) * rest
        # What unsettled groups lost in earlier steps is gone already.
        now = stays**mine * rest * math.prod((self._kept(o) for o in open_), start=Fraction(1))
        return min(alike, now) >= least

    def _kept(self, position: int) -> Fraction:
        return 1 - Fraction(int(self.lost[position]), self._sizes[position])


def channels(graph: Graph, order: RemovalOrder, counted: Collection[int]) -> Cost:
    """How many channels the `counted` groups have left, each channel once whatever its factors.

    Channels are those of the axis that a group is named after; units go in this `order`.
    """
    crossed = factors_of(graph) & set(counted)
    terms = [
        Term(graph.groups[position].name, "channels", graph.groups[position].channels, (order[position][0],))
        for position in counted
        if position not in crossed
    ]
    padded = np.append(graph.group_of, -1)
    homes = dict.fromkeys(_home(graph, graph.groups[position]) for position in sorted(crossed))
    for position in homes:
        axis = graph.axes[position]
        theirs = np.isin(padded[np.atleast_2d(axis.units)], list(crossed)).any(0)
        terms += products(axis.tensor, "channels", 1, (axis.units[..., theirs],))
    return Cost("channels", tuple(terms), graph.n_units)


def _home(graph: Graph, group: Group) -> int:
    """The position of the axis that a group is named after."""
    unit = group.cells[0][0]
    mine = [i for i, axis in enumerate(graph.axes) if axis.tensor == group.name and unit in axis.units]
    return min(mine, key=lambda i: graph.axes[i].role == "reader")
