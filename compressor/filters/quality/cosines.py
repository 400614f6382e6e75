"""Cosines between the filters of a layer, block by block: the whole matrix is never in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import kernel_matrix
from compressor.observing.precision import widened

__all__ = ["CosineBlock", "cosine_blocks", "unit_filters"]

# Legend of shape suffixes: O filters of a layer, F weights of a filter, A rows and B columns of a block.

_FILTERS_AT_ONCE = 1024  # a block is 8 MiB


@dataclass(frozen=True, eq=False)
class CosineBlock:
    """Cosines of the filters `rows` with the filters `columns`, of which none stands before `rows.start`.

    Blocks cover every pair once or, on the diagonal, twice; a filter's cosine with itself is set to 0.
    """

    rows: slice
    columns: slice
    cosines_AB: Tensor

    @property
    def on_diagonal(self) -> bool:
        """Whether rows and columns are the same filters."""
        return bool(self.rows.start == self.columns.start)


def unit_filters(weight: Tensor) -> Tensor:
    """Every filter of a weight [O, ...] divided by its length, in float64 [O, F]; zeros stay zeros.

    >>> unit_filters(torch.tensor([[[3.0], [4.0]], [[0.0], [0.0]]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]], dtype=torch.float64)
    """
    kernel_matrix(weight)  # for its checks
    filters_OF = widened(weight.detach()).flatten(1)
    # Divided by the peak first: squares of tiny weights would vanish.
    peaks_O1 = filters_OF.abs().amax(dim=1, keepdim=True)
    filters_OF = filters_OF / torch.where(peaks_O1 == 0, torch.ones_like(peaks_O1), peaks_O1)
    lengths_O1 = filters_OF.square().sum(dim=1, keepdim=True).sqrt()
    return filters_OF / torch.where(lengths_O1 == 0, torch.ones_like(lengths_O1), lengths_O1)


def cosine_blocks(unit_OF: Tensor, *, at_once: int = _FILTERS_AT_ONCE) -> Iterator[CosineBlock]:
    """The cosines of filters of length one (or zero) with each other, `at_once` by `at_once`.

    >>> [block.cosines_AB.tolist() for block in cosine_blocks(torch.eye(2))]
    [[[0.0, 0.0], [0.0, 0.0]]]
    """
    if at_once < 1:
        raise InputError(f"at_once is how many filters make a block, 1 or more, got {at_once}")
    starts = range(0, len(unit_OF), at_once)
    for top in starts:
        rows = slice(top, min(top + at_once, len(unit_OF)))
        for left in range(top, len(unit_OF), at_once):
            columns = slice(left, min(left + at_once, len(unit_OF)))
            cosines_AB = unit_OF[rows] @ unit_OF[columns].T
            if top == left:
                cosines_AB.fill_diagonal_(0)
            yield CosineBlock(rows, columns, cosines_AB)
