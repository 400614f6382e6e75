"""Duplicates: filters of a layer that point the same way, or the opposite way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.quality.cosines import cosine_blocks, unit_filters
from compressor.filters.quality.orthogonality import SumOfCosines

__all__ = ["Duplicates", "duplicates", "duplicates_and_orthogonality"]

# Legend of shape suffixes: O filters of a layer, F weights of a filter.


@dataclass(frozen=True, eq=False, repr=False)
class Duplicates:
    """The most similar other filter of every filter, and how many pairs are about parallel.

    `largest_O` is the largest |cos| of each filter with another of its group (0 for zero filters and where
    there is no other), `nearest_O` that other filter (−1 where there is none). `pairs` lists the
    pairs (i < j, cos) with |cos| ≥ `above`, the most similar first, `limit` at most; `count` is of all.
    """

    above: float
    largest_O: Tensor
    nearest_O: Tensor
    count: int
    pairs: tuple[tuple[int, int, float], ...]

    def __repr__(self) -> str:
        return (
            f"Duplicates({self.count} pair{'' if self.count == 1 else 's'} of {len(self.largest_O)} filters "
            f"with |cos| >= {self.above:g}, largest {float(self.largest_O.max()):.4f})"
        )


def duplicates(weight: Tensor, *, above: float = 0.95, groups: int = 1, limit: int = 1000) -> Duplicates:
    """Pairs of filters of a weight [O, I, *k] with |cos| ≥ `above`, and every filter's largest |cos|.

    Filters of different groups of a grouped convolution read different channels and make no pair. Filters
    of zeros have no direction and make none either. The default of `above` is ours. Needs memory for one
    block of cosines and `limit` pairs. Raises InputError for a bound outside 0..1 and groups that do not
    divide the filters.

    >>> weight = torch.tensor([[[1.0], [0.0]], [[0.0], [0.0]], [[-2.0], [0.01]], [[0.0], [5.0]]])
    >>> found = duplicates(weight)
    >>> found, found.nearest_O.tolist()
    (Duplicates(1 pair of 4 filters with |cos| >= 0.95, largest 1.0000), [2, -1, 0, 2])
    """
    return duplicates_and_orthogonality(weight, above=above, groups=groups, limit=limit)[0]


def duplicates_and_orthogonality(
    weight: Tensor, *, above: float = 0.95, groups: int = 1, limit: int = 1000
) -> tuple[Duplicates, float | None]:
    """What `duplicates` and `orthogonality` say, from one pass over the cosines.

    >>> duplicates_and_orthogonality(torch.eye(3).reshape(3, 3, 1))[1]
    1.0
    """
    if not 0 < above <= 1:
        raise InputError(f"above is a bound of |cos|, more than 0 and at most 1, got {above!r}")
    if limit < 0:
        raise InputError(f"limit is how many pairs are listed, 0 or more, got {limit}")
    unit_OF = unit_filters(weight)
    filters = len(unit_OF)
    if groups < 1 or filters % groups:
        raise InputError(f"{filters} filters do not make {groups} groups: groups divide the output channels")
    largest_O = unit_OF.new_zeros(filters)
    nearest_O = torch.full((filters,), -1, device=unit_OF.device)
    group_O = torch.arange(filters, device=unit_OF.device) // (filters // groups)
    count, listed = 0, _Longest(limit)
    total = SumOfCosines(unit_OF)
    for block in cosine_blocks(unit_OF):
        cosines_AB = block.cosines_AB
        total.add(block)
        if groups > 1:
            apart_AB = group_O[block.rows, None] != group_O[block.columns]
            cosines_AB = cosines_AB.masked_fill_(apart_AB, 0)
        sizes_AB = cosines_AB.abs()
        _raise_(largest_O, nearest_O, block.rows, sizes_AB, block.columns.start)
        if block.on_diagonal:
            sizes_AB = sizes_AB.triu_(1)
        else:
            _raise_(largest_O, nearest_O, block.columns, sizes_AB.T, block.rows.start)
        # A cosine of exactly parallel filters is 1 up to rounding.
        hits_P2 = (sizes_AB >= above - 1e-12).nonzero()
        count += len(hits_P2)
        listed.add(hits_P2, cosines_AB, block.rows.start, block.columns.start)
    return Duplicates(above, largest_O, nearest_O, count, listed.pairs), total.orthogonality()


def _raise_(largest_O: Tensor, nearest_O: Tensor, rows: slice, sizes_AB: Tensor, first: int) -> None:
    sizes_A, places_A = sizes_AB.max(dim=1)
    more_A = sizes_A > largest_O[rows]
    largest_O[rows] = torch.where(more_A, sizes_A.clamp(max=1), largest_O[rows])
    nearest_O[rows] = torch.where(more_A, places_A + first, nearest_O[rows])


class _Longest:
    """The `limit` pairs with the largest |cos| of all that were added."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pairs: tuple[tuple[int, int, float], ...] = ()

    def add(self, hits_P2: Tensor, cosines_AB: Tensor, top: int, left: int) -> None:
        cosines_P = cosines_AB[hits_P2[:, 0], hits_P2[:, 1]].clamp(-1, 1)
        best_P = cosines_P.abs().argsort(descending=True, stable=True)[: self.limit]
        rows, columns = (hits_P2[best_P].T + torch.tensor([[top], [left]], device=hits_P2.device)).tolist()
        added = zip(rows, columns, cosines_P[best_P].tolist(), strict=True)
        both = [*self.pairs, *added]
        self.pairs = tuple(sorted(both, key=lambda pair: (-abs(pair[2]), pair[:2]))[: self.limit])
