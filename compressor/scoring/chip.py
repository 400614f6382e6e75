"""CHIP: what a feature map adds to the other maps of its layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.observing.precision import widened
from compressor.scoring.activation_scorer import ActivationScorer

__all__ = ["CHIP", "independence"]

_ENTRIES_AT_ONCE = 1 << 23  # 64 MiB of float64


@dataclass(frozen=True, repr=False, eq=False)
class CHIP(ActivationScorer):
    """Scores a channel by its independence: how much the layer's nuclear norm falls without it.

    For each sample the maps of a layer are the rows of a matrix A [C, positions]; a channel whose map is
    a combination of the others takes little of the sum of the singular values with it. Costs C
    eigenvalue problems of size min(C, positions) for each layer and sample: take few samples
    (`max_batches`). Where a matrix reads single numbers, A has one column and the score grows with the
    activation. For the other arguments see `ActivationScorer`.

    *Source: Y. Sui, M. Yin, Y. Xie, H. Phan, S. Zonouz, B. Yuan, 2021, arXiv 2110.13981.*
    Departures: maps are those that readers read; `normalize` is "mean", where the paper ranks each layer
    by itself; and channels of several heads or pixels that one matrix reads are rows of their own.

    >>> import torch
    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Conv2d(3, 1, 3))
    >>> images = torch.rand(8, 1, 7, 7)
    >>> cp.score(cp.capture(net, images), CHIP([images]))
    Scores(CHIP() of Sequential: 3 units in 1 group, ...)
    """

    def measure(self, maps: Tensor) -> Tensor:
        """The sum over samples of each channel's independence."""
        return torch.stack([independence(features_CP) for features_CP in maps.flatten(2)]).sum(dim=0)


def independence(features_CP: Tensor) -> Tensor:
    """CI(i) = ‖A‖_* − ‖M_i ⊙ A‖_* for every row i of A, in float64 [C]; M_i sets row i to zero.

    >>> independence(torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]))
    tensor([3., 4., 0.], dtype=torch.float64)
    """
    features_CP = widened(features_CP)
    count, positions = features_CP.shape
    # The singular values of A are the roots of the eigenvalues of A Aᵀ and of Aᵀ A, the smaller of
    # which is taken: without row i the one lacks row and column i, the other the product of the row.
    by_rows = count <= positions
    gram = features_CP @ features_CP.T if by_rows else features_CP.T @ features_CP
    total = _nuclear_norm(gram)
    each = max(1, _ENTRIES_AT_ONCE // max(1, gram.numel()))
    without = []
    for start in range(0, count, each):
        rows = torch.arange(start, min(start + each, count), device=gram.device)
        if by_rows:
            left = gram.repeat(len(rows), 1, 1)
            left[torch.arange(len(rows), device=gram.device), rows] = 0
            left[torch.arange(len(rows), device=gram.device), :, rows] = 0
        else:
            left = gram - features_CP[rows, :, None] * features_CP[rows, None, :]
        without.append(_nuclear_norm(left))
    return total - torch.cat(without)


def _nuclear_norm(gram: Tensor) -> Tensor:
    """The sum of the singular values of matrices with these Gram matrices [..., n, n]."""
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return squares.clamp(min=0).sqrt().sum(dim=-1)  # of rounding, some are below zero
