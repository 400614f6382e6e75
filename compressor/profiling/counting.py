"""Sums of products of dimensions, and how they shrink: the arithmetic under every cost.

A *dimension* is an array of units, one for each position along some axis (PINNED where nothing can
go). What it costs to run or to keep a model is Σ coefficient * Π kept(dimension) // divisor, so a
cost needs no tensor and no forward pass: the kept lengths of the distinct dimensions are enough.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.core.channels import Mask, grids
from compressor.errors import InputError

__all__ = [
    "Counts",
    "Dimensions",
    "Numbers",
    "Polynomial",
    "RemovalOrder",
    "Term",
    "Track",
    "flags",
    "products",
]

Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]  # int64, or Python integers (dtype object) where int64 could overflow
RemovalOrder = Sequence[npt.NDArray[np.int64]]  # for each group [n_cells, size]: who goes first
_INT64_SAFE = 1 << 62


def flags(removed: Mask | None, n_units: int) -> Mask:
    """The flags [n_units] of units that go, none for None; raises InputError for anything else.

    >>> flags(None, 2).tolist(), flags([True, False], 2).tolist()
    ([False, False], [True, False])
    """
    gone = np.zeros(n_units, dtype=bool) if removed is None else np.asarray(removed)
    if not gone.size:
        gone = gone.astype(np.bool_)  # an empty list has no type of its own
    if gone.shape != (n_units,) or gone.dtype != np.bool_:
        raise InputError(
            f"`removed` must hold one flag for each of the {n_units} units, got {gone.dtype} "
            f"{list(gone.shape)}"
        )
    return gone


@dataclass(frozen=True, eq=False)
class Term:
    """One summand: coefficient * Π kept(dims) // divisor, with the names it is reported under."""

    module: str
    label: str
    coefficient: int
    dims: tuple[npt.NDArray[np.int64], ...]
    divisor: int = 1


def products(
    module: str, label: str, coefficient: int, dims: tuple[npt.NDArray[np.int64], ...], divisor: int = 1
) -> Iterator[Term]:
    """The terms of a product whose dimensions may have factors [factors, size], see `channels.grids`.

    >>> heads_times_dims = np.array([[0, 0, 1, 1], [2, 3, 2, 3]])
    >>> [len(t.dims) for t in products("q", "weight", 1, (heads_times_dims, np.array([4, 5])))]
    [3]
    """
    for choice in itertools.product(*(tuple(grids(dim)) for dim in dims)):
        times = math.prod(count for count, _ in choice)
        yield Term(module, label, coefficient * times, tuple(d for _, ds in choice for d in ds), divisor)


@dataclass(frozen=True, eq=False)
class Dimensions:
    """Distinct dimensions: their lengths, and how often each unit occurs in each of them."""

    sizes: Counts
    dim: Counts
    unit: Counts
    count: Counts

    @classmethod
    def of(cls, arrays: Sequence[npt.NDArray[np.int64]]) -> tuple[Dimensions, list[int]]:
        """The distinct ones among `arrays`, and for each array which of them it is.

        >>> channels = np.array([0, 1, -1])
        >>> dims, which = Dimensions.of([channels, np.array([0, 0]), channels.copy()])
        >>> dims.sizes.tolist(), which
        ([3, 2], [0, 1, 0])
        >>> dims.kept(np.array([True, False])).tolist()  # unit 0 goes
        [2, 0]
        """
        known: dict[bytes, int] = {}
        which = [known.setdefault(np.asarray(a, np.int64).tobytes(), len(known)) for a in arrays]
        distinct = [np.frombuffer(data, dtype=np.int64) for data in known]
        sizes = np.array([len(units) for units in distinct], dtype=np.int64)
        owner = np.repeat(np.arange(len(distinct)), sizes)
        units = np.concatenate([*distinct, np.empty(0, np.int64)])
        free = units >= 0
        pairs, count = np.unique(np.stack([owner[free], units[free]]), axis=1, return_counts=True)
        return cls(sizes, pairs[0], pairs[1], count.astype(np.int64)), which

    def kept(self, removed: Mask) -> Counts:
        """How many positions of each dimension stay [n_dims] when `removed` [n_units] units go."""
        gone = removed[self.unit]
        lost = np.zeros(len(self.sizes), dtype=np.int64)
        np.add.at(lost, self.dim[gone], self.count[gone])
        return self.sizes - lost

    def along(self, order: RemovalOrder) -> Track:
        """The kept lengths as a function of how many ranks each group has lost, in this order."""
        ranks = [cells.shape[1] for cells in order]
        n_units = 1 + max([int(self.unit.max(initial=-1)), *(int(c.max(initial=-1)) for c in order)])
        group_of = np.full(n_units, -1, dtype=np.int64)
        rank_of = np.zeros(n_units, dtype=np.int64)
        for position, cells in enumerate(order):
            group_of[cells] = position
            rank_of[cells] = np.arange(cells.shape[1])
        moving = group_of[self.unit] >= 0
        dim, unit, count = self.dim[moving], self.unit[moving], self.count[moving]
        key = dim * max(1, len(order)) + group_of[unit]
        pairs, pair_of = np.unique(key, return_inverse=True)
        pair_dim, pair_group = pairs // max(1, len(order)), pairs % max(1, len(order))
        lengths = np.array(ranks, dtype=np.int64)[pair_group] + 1
        offsets = np.cumsum(lengths) - lengths
        table = np.zeros(int(lengths.sum()), dtype=np.int64)
        np.add.at(table, offsets[pair_of] + rank_of[unit] + 1, count)
        running = np.cumsum(table)
        if len(offsets):
            running -= np.repeat(running[offsets], lengths)
        return Track(self.sizes, running, offsets, pair_dim, pair_group)


@dataclass(frozen=True, eq=False)
class Track:
    """Kept lengths for many candidates at once, see `Dimensions.along`."""

    sizes: Counts
    table: Counts
    offsets: Counts
    dim: Counts
    group: Counts

    def kept(self, lost: Counts) -> Counts:
        """Positions that stay [..., n_dims] when the groups lose `lost` [..., n_groups] ranks."""
        kept = np.broadcast_to(self.sizes, (*lost.shape[:-1], len(self.sizes))).copy()
        if len(self.dim):
            gone = self.table[self.offsets + lost[..., self.group]]
            starts = np.flatnonzero(np.diff(self.dim, prepend=-1))  # `dim` ascends by construction
            kept[..., self.dim[starts]] -= np.add.reduceat(gone, starts, axis=-1)
        return kept


@dataclass(frozen=True, eq=False)
class Polynomial:
    """Σ coefficient * Π kept(dims) // divisor over terms, exact however large the numbers."""

    dims: Dimensions
    coefficient: Numbers
    index: Counts
    divisor: Numbers

    @classmethod
    def of(cls, terms: Sequence[Term]) -> Polynomial:
        """The polynomial of these terms.

        >>> rows, columns = np.array([0, 1, 2]), np.array([-1, -1])
        >>> terms = [Term("fc", "weight", 1, (rows, columns)), Term("fc", "bias", 1, (rows,))]
        >>> linear = Polynomial.of(terms)
        >>> linear.terms(linear.dims.kept(np.array([False, True, False]))).tolist()
        [4, 2]
        """
        dims, which = Dimensions.of([dim for term in terms for dim in term.dims])
        width = max((len(term.dims) for term in terms), default=0)
        # One more than there are dimensions stands for "no further factor".
        index = np.full((len(terms), width), len(dims.sizes), dtype=np.int64)
        position = 0
        largest = 0
        for row, term in enumerate(terms):
            index[row, : len(term.dims)] = which[position : position + len(term.dims)]
            position += len(term.dims)
            product = term.coefficient
            for dim in term.dims:
                product *= len(dim)
            largest += product
        kind = np.int64 if largest < _INT64_SAFE else object
        coefficient = np.array([term.coefficient for term in terms], dtype=kind)
        return cls(dims, coefficient, index, np.array([term.divisor for term in terms], dtype=kind))

    def terms(self, kept: Counts) -> Numbers:
        """The value of each term [..., n_terms] for kept lengths [..., n_dims]."""
        ones = np.ones((*kept.shape[:-1], 1), dtype=np.int64)
        factors = np.concatenate([kept, ones], axis=-1).astype(self.coefficient.dtype)
        product: Numbers = np.prod(factors[..., self.index], axis=-1)
        return product * self.coefficient // self.divisor
