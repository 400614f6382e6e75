"""WHC: filters that are long, and unlike the long ones of their layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.observing.precision import widened
from compressor.scoring.filter_scorer import FilterScorer

__all__ = ["WHC", "hybrid_scores"]

_PRODUCTS_AT_ONCE = 1 << 22  # 32 MiB of float64


@dataclass(frozen=True, repr=False)
class WHC(FilterScorer):
    """Scores a filter by its norm times its dissimilarity to the others, weighted by their norms.

    A filter that points where long filters point, or against them, can be replaced by these. For the
    arguments see `FilterScorer`.

    *Source: S. Chen, W. Sun, L. Huang, 2023, arXiv 2302.08185 (weighted hybrid criterion).*

    >>> WHC()
    WHC()
    """

    def measure(self, filters_NF: Tensor) -> Tensor:
        """Each filter's norm times its dissimilarity to the others, weighted by their norms."""
        return hybrid_scores(filters_NF)


def hybrid_scores(filters_NF: Tensor) -> Tensor:
    """s(i) = ‖F_i‖ Σ_{j≠i} ‖F_j‖ (1 − |cos(F_i, F_j)|) of every filter, in float64 [N].

    >>> hybrid_scores(torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]]))
    tensor([2., 5., 3.], dtype=torch.float64)
    """
    filters_NF = widened(filters_NF)
    norms_N = torch.linalg.vector_norm(filters_NF, dim=1)
    # ‖F_i‖ ‖F_j‖ |cos| is |F_i · F_j|, also where a norm is zero, and for j = i the terms are equal.
    sums = []
    rows = max(1, _PRODUCTS_AT_ONCE // max(1, len(filters_NF)))
    for start in range(0, len(filters_NF), rows):
        some = slice(start, start + rows)
        shared_M = (filters_NF[some] @ filters_NF.T).abs().sum(dim=1)
        sums.append((norms_N[some] * norms_N.sum() - shared_M).clamp(min=0))
    return torch.cat(sums)
