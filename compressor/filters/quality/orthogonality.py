"""Orthogonality of the filters of a layer: 1 where all are at right angles, 0 where all are parallel."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.filters.quality.cosines import CosineBlock, cosine_blocks, unit_filters

__all__ = ["SumOfCosines", "orthogonality", "published_orthogonality"]

# Legend of shape suffixes: O filters of a layer, F weights of a filter.


def orthogonality(weight: Tensor) -> float | None:
    """1 − the mean |cos| over all pairs of filters that are not zero, of a weight [O, I, *k]; 0 to 1.

    Anti-parallel filters count as parallel. None where fewer than two filters are not zero: there is no pair.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2204.02481 (robust networks), as in their code and
    torchconvquality.* Departures: zero filters are left out, where they count there as orthogonal to all
    and as a fault of 1 on the diagonal; the diagonal is left out, where its rounding counts; None for one
    filter, where −∞ or NaN comes out. `published_orthogonality` has the published numbers.

    >>> orthogonality(torch.tensor([[[1.0], [0.0]], [[0.0], [2.0]], [[0.0], [-1.0]]]))
    0.666...
    >>> orthogonality(torch.ones(1, 3, 3, 3)) is None
    True
    """
    return _summed(weight).orthogonality()


def published_orthogonality(weight: Tensor) -> float | None:
    """The published number 1 − Σ|F Fᵀ − I| / (O (O − 1)), F the filters divided by their lengths.

    Filters of zeros stay zeros, so a layer of zeros has 1 − 1/(O − 1). None for one filter, where the
    original divides by zero and gives −∞ or NaN, as rounding has it.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2204.02481, and torchconvquality.*

    >>> round(published_orthogonality(torch.zeros(8, 4, 3, 3)), 6)
    0.857143
    """
    total = _summed(weight)
    if total.filters < 2:
        return None
    faults = total.value + total.filters - total.alive
    return 1 - faults / (total.filters * (total.filters - 1))


class SumOfCosines:
    """Σ |cos| over ordered pairs of different filters, block by block."""

    def __init__(self, unit_OF: Tensor) -> None:
        self.filters = len(unit_OF)
        self.alive = int((unit_OF.abs().amax(dim=1) > 0).sum())
        self._total = torch.zeros((), dtype=unit_OF.dtype, device=unit_OF.device)

    def add(self, block: CosineBlock) -> None:
        """Take a block in."""
        self._total += block.cosines_AB.abs().sum() * (1 if block.on_diagonal else 2)

    @property
    def value(self) -> float:
        """The sum so far."""
        return float(self._total)

    def orthogonality(self) -> float | None:
        """1 − the mean over pairs of filters that are not zero; None where there is no pair."""
        return None if self.alive < 2 else 1 - self.value / (self.alive * (self.alive - 1))


def _summed(weight: Tensor) -> SumOfCosines:
    unit_OF = unit_filters(weight)
    total = SumOfCosines(unit_OF)
    for block in cosine_blocks(unit_OF):
        total.add(block)
    return total
