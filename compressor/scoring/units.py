"""How the scores of sites become scores of units, and how the groups are made comparable."""

from __future__ import annotations

import math
from enum import Enum
from numbers import Real
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from compressor.core.graph import Graph, UnitArray
from compressor.errors import InputError

__all__ = [
    "Normalize",
    "NormalizeLike",
    "Reduce",
    "ReduceLike",
    "Values",
    "choice",
    "comparable",
    "is_positive",
    "reduce_sites",
]

Values = npt.NDArray[np.float64]


class Reduce(Enum):
    """What a unit's score is of the scores of its sites; the string of the same name does as well.

    `FIRST` is the site met first in the order of the graph's axes, as a rule the row of the filter
    that writes the channel; of several sites on that axis, as a head has them, their mean.

    >>> Reduce("mean")
    'mean'
    """

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    FIRST = "first"

    def __repr__(self) -> str:
        return repr(self.value)


class Normalize(Enum):
    """What the scores of a group are divided by, so that one threshold can be held to all groups.

    `MEAN` and `MAX` are those of the absolute scores: the order inside a group never changes, not
    even for negative scores, and a group of zeros stays at zero. `RANK` puts the k-th smallest of n
    units at k / n, equal scores at their average rank.

    >>> Normalize("rank")
    'rank'
    """

    NONE = "none"
    MEAN = "mean"
    MAX = "max"
    RANK = "rank"

    def __repr__(self) -> str:
        return repr(self.value)


ReduceLike = Reduce | Literal["sum", "mean", "max", "first"]
NormalizeLike = Normalize | Literal["none", "mean", "max", "rank"]
Choice = TypeVar("Choice", bound=Enum)


def is_positive(value: object) -> bool:
    """Whether a value is a finite number above 0."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def choice(kind: type[Choice], value: object, option: str) -> Choice:
    """The member of `kind` that `value` (a member or its string) names; InputError for others."""
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(repr(member.value) for member in kind)
        raise InputError(f"{option} must be one of {known}; got {value!r}") from None


def reduce_sites(values: Values, units: UnitArray, n_units: int, how: Reduce) -> Values:
    """The unit scores [n_units] of site scores `values`; NaN for a unit without a site.

    `units` gives the unit of each site, without pinned ones.

    >>> reduce_sites(np.array([1.0, 2.0, 5.0]), np.array([0, 1, 0]), 3, Reduce.MEAN)
    array([ 3.,  2., nan])
    """
    counts = np.bincount(units, minlength=n_units)
    if how is Reduce.MAX:
        result = np.full(n_units, -np.inf)
        np.maximum.at(result, units, values)
    elif how is Reduce.FIRST:
        result = np.zeros(n_units)
        result[units[::-1]] = values[::-1]  # of a repeated index the last assignment stays
    else:
        result = np.bincount(units, weights=values, minlength=n_units)
        if how is Reduce.MEAN:
            result = result / np.maximum(counts, 1)
    return np.where(counts == 0, np.nan, result)


def comparable(values: Values, graph: Graph, how: Normalize) -> Values:
    """The unit scores `values` [n_units], each on the scale of its group; NaN stays NaN."""
    if how is Normalize.NONE or not len(values):
        return values
    group_of = graph.group_of - graph.group_of.min()  # a unit without a group would be at -1
    if how is Normalize.RANK:
        return _ranks(values, group_of)
    known = ~np.isnan(values)
    sizes = np.abs(values[known])
    if how is Normalize.MAX:
        scale = np.zeros(group_of.max() + 1)
        np.maximum.at(scale, group_of[known], sizes)
    else:
        # Divided first, a sum cannot overflow where a mean does not.
        count = np.bincount(group_of[known], minlength=group_of.max() + 1)
        shares = sizes / count[group_of[known]]
        scale = np.bincount(group_of[known], weights=shares, minlength=len(count))
    scale[scale == 0] = 1.0  # a group of zeros has no scale and stays as it is
    result: Values = values / scale[group_of]
    return result


def _ranks(values: Values, group_of: UnitArray) -> Values:
    """Average rank of each value within its group, divided by the group's size."""
    result = np.full(len(values), np.nan)
    for group in np.unique(group_of):
        members = np.flatnonzero((group_of == group) & ~np.isnan(values))
        _, inverse, counts = np.unique(values[members], return_inverse=True, return_counts=True)
        average = np.cumsum(counts) - (counts - 1) / 2
        result[members] = average[inverse] / max(len(members), 1)
    return result
