"""HRank: how much a feature map holds, by its rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.observing.precision import widened
from compressor.scoring.activation_scorer import ActivationScorer

__all__ = ["HRank", "map_ranks"]


@dataclass(frozen=True, repr=False, eq=False)
class HRank(ActivationScorer):
    """Scores a channel by the mean rank of its feature maps, as matrices of height times width.

    Only two-dimensional maps are measured (of volumes: every slice, and their mean). What a matrix or a
    one-dimensional convolution reads has rank 0 or 1 and says nothing; channels that nothing else reads
    are for `otherwise`. One SVD for each map, which costs more than ten forward passes: a few hundred
    samples are enough, for the mean hardly changes from batch to batch (the paper's observation). For the
    other arguments see `ActivationScorer`.

    *Source: M. Lin, R. Ji, Y. Wang, Y. Zhang, B. Zhang, Y. Tian, L. Shao, 2020, arXiv 2002.10179.*
    Departures: maps are those that readers read, so that any architecture has them (in a
    chain of convolutions and ReLUs the same as the paper's); `normalize` is "mean", where the paper
    ranks the channels of each layer by themselves.

    >>> import torch
    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Conv2d(3, 1, 3))
    >>> images = torch.rand(8, 1, 7, 7)
    >>> cp.score(cp.capture(net, images), HRank([images]))
    Scores(HRank() of Sequential: 3 units in 1 group, ...)
    """

    def measure(self, maps: Tensor) -> Tensor | None:
        """The sum of the ranks over samples; None for maps without height and width."""
        return map_ranks(maps).sum(dim=0) if maps.dim() > 3 else None


def map_ranks(maps_NCHW: Tensor) -> Tensor:
    """The rank of every map, in float64 [N, C]; of volumes [N, C, D, H, W] the mean over slices.

    Always counted in float32, in which maps are computed as a rule: its resolution is what tells a
    singular value from rounding.

    >>> map_ranks(torch.stack([torch.eye(3), torch.ones(3, 3), torch.zeros(3, 3)])[None])
    tensor([[3., 1., 0.]], dtype=torch.float64)
    """
    ranks = widened(torch.linalg.matrix_rank(maps_NCHW.to(torch.float32)))
    return ranks.flatten(2).mean(dim=2) if ranks.dim() > 2 else ranks
