"""FPGM: filters near the geometric median of their layer can be replaced by the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.observing.precision import widened
from compressor.scoring.filter_scorer import FilterScorer

__all__ = ["GeometricMedian", "distance_sums"]

_DISTANCES_AT_ONCE = 1 << 22  # 32 MiB of float64: a vocabulary's distances do not fit into memory


@dataclass(frozen=True, repr=False)
class GeometricMedian(FilterScorer):
    """Scores a filter by the sum of its distances to all filters of its layer.

    By default over the weights that write a channel: these are the filters of the paper. For the arguments
    see `FilterScorer`.

    *Source: Y. He, P. Liu, Z. Wang, Z. Hu, Y. Yang, 2019, arXiv 1811.00250, equation 7 (the filter
    with the least sum of distances lies nearest to the geometric median).*

    >>> GeometricMedian()
    GeometricMedian()
    """

    def measure(self, filters_NF: Tensor) -> Tensor:
        """The sum of the distances of each filter to all filters."""
        return distance_sums(filters_NF)


def distance_sums(filters_NF: Tensor) -> Tensor:
    """g(j) = Σ_k ‖F_j − F_k‖₂ for every filter j, in float64 [N].

    >>> distance_sums(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]))
    tensor([ 5., 10.,  5.], dtype=torch.float64)
    """
    filters_NF = widened(filters_NF)
    # ‖a − b‖² = ‖a‖² + ‖b‖² − 2 a·b loses digits where a and b are long and close: centring
    # shortens them, float64 does the rest.
    filters_NF = filters_NF - filters_NF.mean(dim=0)
    squares_N = filters_NF.square().sum(dim=1)
    sums = []
    rows = max(1, _DISTANCES_AT_ONCE // max(1, len(filters_NF)))
    for start in range(0, len(filters_NF), rows):
        some = slice(start, start + rows)
        squares_MN = torch.addmm(squares_N, filters_NF[some], filters_NF.T, alpha=-2)
        squares_MN += squares_N[some, None]
        sums.append(squares_MN.clamp_(min=0).sqrt_().sum(dim=1))
    return torch.cat(sums)
