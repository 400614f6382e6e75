"""Taylor on gates: how much the loss changes when what a BatchNorm writes is switched off."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from torch import Tensor

from compressor.core.graph import Axis, Graph
from compressor.errors import InputError
from compressor.scoring.base import Scorer
from compressor.scoring.batch_norm_scale import batch_norm_vectors
from compressor.scoring.gradient_scorer import GradientScorer, Joint
from compressor.scoring.otherwise import check_otherwise, filled
from compressor.scoring.units import Values

__all__ = ["GateTaylor"]


@dataclass(frozen=True, repr=False, eq=False)
class GateTaylor(GradientScorer):
    """Scores a unit by (∂L/∂z)² of a gate z = 1 behind its BatchNorms, averaged over batches.

    The derivative by a gate is Σ y·∂L/∂y over what the norm writes, and that is γ·∂L/∂γ + β·∂L/∂β: no
    activation is looked at. All gates of a unit close together: where several norms write one channel,
    as in a residual stream, or one follows another, their derivatives are summed before they are squared
    (`joint` is "unit"). A group with a unit that meets no BatchNorm with a scale is scored by
    `otherwise`, whose numbers are of another kind; without one it raises ScoreError. `roles` has no
    effect. For the other arguments see `Taylor`.

    *Source: P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, 2019, arXiv 1906.10771, section 3
    (Taylor-FO on gates behind BatchNorm).*

    >>> import torch
    >>> import compressor as cp
    >>> layers = torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU(), torch.nn.Linear(3, 1)
    >>> net, data = torch.nn.Sequential(*layers), [(torch.randn(8, 2), torch.ones(8, 1))]
    >>> cp.score(cp.capture(net, torch.ones(2, 2)), GateTaylor(data, torch.nn.functional.mse_loss))
    Scores(GateTaylor() of Sequential: 3 units in 1 group, ...)
    """

    _: KW_ONLY
    otherwise: Scorer | None = None

    def __post_init__(self) -> None:
        check_otherwise(self.otherwise)
        super().__post_init__()
        if self.joint is not Joint.UNIT:
            raise InputError(
                f"GateTaylor: joint must be 'unit', got {self.joint!r}: a gate belongs to a unit"
            )

    def measure(self, products: Tensor) -> Tensor:
        """(∂L/∂z)²."""
        return products.square()

    def axes(self, graph: Graph) -> list[Axis]:
        """The scales and shifts of every BatchNorm."""
        scales = batch_norm_vectors(graph.model, "weight")
        vectors = {**scales, **batch_norm_vectors(graph.model, "bias")}
        return [axis for axis in graph.axes if axis.tensor in vectors]

    own_axes = axes

    def raw_unit_scores(self, graph: Graph) -> Values:
        """The scores [n_units]; NaN for units without a gate."""
        gated = np.zeros(graph.n_units + 1, dtype=bool)
        for axis in self.axes(graph):
            gated[axis.units] = True
        return np.where(gated[:-1], super().raw_unit_scores(graph), np.nan)

    def unit_scores(self, graph: Graph) -> Values:
        """The scores, with the groups that have units without a gate scored by `otherwise`."""
        raw = self.raw_unit_scores(graph)
        return filled(self, graph, raw, self.otherwise, lack="meet no BatchNorm with a scale")
