"""What criteria on filters share: a number for each filter, from all filters of its layer."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from compressor.core.graph import Graph
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike
from compressor.scoring.weights import (
    WRITERS,
    RolesLike,
    channel_slices,
    layer_scores,
    roles_of,
    weight_axes,
    weights_of,
)

__all__ = ["FilterScorer"]


@dataclass(frozen=True, repr=False)
class FilterScorer(Scorer):
    """A scorer that measures every filter among the filters of its layer.

    By default over the weights that write a channel (`roles`). A head of attention is one filter among the
    heads of its weight, and so are the dims of heads.

    >>> import torch, compressor as cp
    >>> class Peak(FilterScorer):
    ...     '''The largest weight of each filter.'''
    ...     def measure(self, filters_NF):
    ...         return filters_NF.abs().amax(dim=1)
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> cp.score(cp.capture(net, torch.ones(1, 4)), Peak(normalize="max"))
    Scores(Peak(normalize='max') of Sequential: 3 units in 1 group, ...)
    """

    _: KW_ONLY
    roles: RolesLike = WRITERS
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.MEAN

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", roles_of(self.roles))
        super().__post_init__()

    @abstractmethod
    def measure(self, filters_NF: Tensor) -> Tensor:
        """One number [N] for each of the filters [N, F] of a layer, larger = more worth keeping."""

    def site_scores(self, graph: Graph) -> SiteScores:
        """The measure of every channel of each weight with one of the roles."""
        weights = weights_of(graph)
        return {
            (axis.tensor, axis.axis): layer_scores(
                graph, axis, channel_slices(weights[axis.tensor], axis), self.measure
            )
            for axis in weight_axes(graph, self.roles)
        }
