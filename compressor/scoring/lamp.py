"""LAMP: a channel's share of what is left when all smaller ones of its layer are gone."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from compressor.core.graph import Axis, Graph
from compressor.observing.precision import widened
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.norm import norms_of_axes
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike
from compressor.scoring.weights import WRITERS, RolesLike, factor_layers, roles_of, weight_axes, weights_of

__all__ = ["LAMP", "lamp"]


@dataclass(frozen=True, repr=False)
class LAMP(Scorer):
    """Scores a channel by its squared norm over the sum of those of its layer not smaller than it.

    The largest channel of every layer scores 1, so scores compare across layers as they are and
    `normalize` is "none". The layer is the weight that writes the channel (`roles`). A head of
    attention is measured as a whole among the heads of its weight, and so are the dims of heads.

    *Source: J. Lee, S. Park, S. Mo, S. Ahn, J. Shin, 2021, arXiv 2010.07611, equation 4*, there for
    single weights, here for channels by their squared L2 norms.

    >>> LAMP()
    LAMP()
    """

    _: KW_ONLY
    roles: RolesLike = WRITERS
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.NONE

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", roles_of(self.roles))
        super().__post_init__()

    def site_scores(self, graph: Graph) -> SiteScores:
        """The LAMP score of every channel of each layer with one of the roles."""
        axes = weight_axes(graph, self.roles)
        norms = norms_of_axes(weights_of(graph), axes, 2)
        squares = {key: widened(values).square() for key, values in norms.items()}
        return {(a.tensor, a.axis): _lamp_of_axis(graph, a, squares[a.tensor, a.axis]) for a in axes}


def _lamp_of_axis(graph: Graph, axis: Axis, squares_N: Tensor) -> Tensor:
    """The scores of the channels of an axis [N], or [factors, N] where it has several."""
    if axis.units.ndim == 1:
        return lamp(squares_N)
    scores = squares_N.new_zeros(axis.units.shape)
    for factor, channels in factor_layers(graph, axis):
        places = torch.from_numpy(channels).to(squares_N.device)
        scores[factor, places] = lamp(squares_N[places].sum(dim=1))[:, None]
    return scores


def lamp(squares_N: Tensor) -> Tensor:
    """score(u) = W[u]² / Σ_{v: W[v]² ≥ W[u]²} W[v]² of squared norms [N]; 0 where all are 0.

    Departure: the paper sums over v ≥ u in sorted order, which tells equal weights apart by their
    position; here equal norms have equal scores.

    >>> lamp(torch.tensor([1.0, 3.0, 1.0]))
    tensor([0.2000, 1.0000, 0.2000])
    """
    ascending_N = squares_N.sort().values
    not_smaller_N = ascending_N.flip(0).cumsum(0).flip(0)
    sums_N = not_smaller_N[torch.searchsorted(ascending_N, squares_N.contiguous())]
    return torch.where(sums_N > 0, squares_N / sums_N, 0.0)
