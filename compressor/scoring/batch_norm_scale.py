"""Network slimming: the scale of a channel's BatchNorm."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.core.graph import Graph
from compressor.core.tape import named_tensors
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.otherwise import check_otherwise, filled
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike, Values

__all__ = ["BatchNormScale", "batch_norm_vectors"]


@dataclass(frozen=True, repr=False)
class BatchNormScale(Scorer):
    """Scores a channel by |γ| of the BatchNorm layers it goes through.

    One threshold is held to the |γ| of all layers, as in the paper, so `normalize` is "none". A
    group in which a unit meets no BatchNorm with a scale is scored as a whole by `otherwise`;
    without one it raises ScoreError. The two measure different things: with `otherwise`, choose a
    `normalize` for both when layers compete with one another.

    *Source: Z. Liu, J. Li, Z. Shen, G. Huang, S. Yan, C. Zhang, 2017, arXiv 1708.06519.*

    >>> from compressor.scoring import Norm
    >>> BatchNormScale(otherwise=Norm(1), normalize="mean")
    BatchNormScale(otherwise=Norm(p=1), normalize='mean')
    """

    _: KW_ONLY
    otherwise: Scorer | None = None
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.NONE

    def __post_init__(self) -> None:
        check_otherwise(self.otherwise)
        super().__post_init__()

    def site_scores(self, graph: Graph) -> SiteScores:
        """|γ| of every BatchNorm that has one."""
        scales = batch_norm_vectors(graph.model, "weight")
        return {
            (axis.tensor, axis.axis): scales[axis.tensor].detach().abs()
            for axis in graph.axes
            if axis.tensor in scales
        }

    def unit_scores(self, graph: Graph) -> Values:
        """|γ| reduced over each unit, with the groups that have none scored by `otherwise`."""
        raw = self.raw_unit_scores(graph)
        return filled(self, graph, raw, self.otherwise, lack="meet no BatchNorm with a scale")


def batch_norm_vectors(model: nn.Module, attribute: Literal["weight", "bias"]) -> dict[str, Tensor]:
    """The scales (or shifts) of all BatchNorm layers that have them, by canonical name."""
    names = {id(tensor): name for name, tensor in named_tensors(model).items()}
    found = (getattr(module, attribute) for module in model.modules() if isinstance(module, _BatchNorm))
    return {names[id(vector)]: vector for vector in found if id(vector) in names}
