"""Orthogonality of the filters of a layer: 1 where all are at right angles, 0 where all are parallel."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.filters.quality.cosines import cosine_blocks, unit_filters

__all__ = ["orthogonality", "published_orthogonality"]

# Legend of shape suffixes: O filters of a layer, F weights of a filter.


def orthogonality(weight: Tensor) -> float | None:
    """1 − the mean |cos| over all pairs of filters that are not zero, of a weight [O, I, *k]; 0 to 1.

    Anti-parallel filters count as parallel. None where fewer than two filters are not zero: there is no pair.

    *Source: P. Gavrikov, J. Keuper, CVPR workshops 2022 (robust and normal filters), as in their code and
    torchconvquality.* Departures: zero filters are left out, where they count there as orthogonal to all
    and as a fault of 1 on the diagonal; the diagonal is left out, where its rounding counts; None for one
    filter, where −∞ or NaN comes out. `published_orthogonality` has the published numbers.

    >>> orthogonality(torch.tensor([[[1.0], [0.0]], [[0.0], [2.0]], [[0.0], [-1.0]]]))
    0.666...
    >>> orthogonality(torch.ones(1, 3, 3, 3)) is None
    True
    """
    unit_OF = unit_filters(weight)
    alive_RF = unit_OF[unit_OF.abs().amax(dim=1) > 0]
    filters = len(alive_RF)
    if filters < 2:
        return None
    return 1 - _sum_of_cosines(alive_RF) / (filters * (filters - 1))


def published_orthogonality(weight: Tensor) -> float | None:
    """The published number 1 − Σ|F Fᵀ − I| / (O (O − 1)), F the filters divided by their lengths.

    Filters of zeros stay zeros, so a layer of zeros has 1 − 1/(O − 1). None for one filter, where the
    original divides by zero and gives −∞ or NaN, as rounding has it.

    *Source: P. Gavrikov, J. Keuper, CVPR workshops 2022, and torchconvquality.*

    >>> round(published_orthogonality(torch.zeros(8, 4, 3, 3)), 6)
    0.857143
    """
    unit_OF = unit_filters(weight)
    filters = len(unit_OF)
    if filters < 2:
        return None
    zero = int((unit_OF.abs().amax(dim=1) == 0).sum())
    return 1 - (_sum_of_cosines(unit_OF) + zero) / (filters * (filters - 1))


def _sum_of_cosines(unit_OF: Tensor) -> float:
    """Σ |cos| over ordered pairs of different filters."""
    total = torch.zeros((), dtype=unit_OF.dtype, device=unit_OF.device)
    for block in cosine_blocks(unit_OF):
        total += block.cosines_AB.abs_().sum() * (1 if block.on_diagonal else 2)
    return float(total)
