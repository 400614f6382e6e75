"""Hessian: the second-order change of the loss when a unit is removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from compressor.core.graph import Axis, Graph
from compressor.core.reference import plainly
from compressor.core.tape import named_tensors
from compressor.errors import InputError
from compressor.observing import merged
from compressor.scoring.gradient_scorer import GradientScorer, Joint, unit_sums
from compressor.scoring.second_order import along
from compressor.scoring.units import Values

__all__ = ["Hessian"]


@dataclass(frozen=True, repr=False, eq=False)
class Hessian(GradientScorer):
    """Scores a unit by ½ wᵀHw over the weights w that read it, averaged over batches.

    At a minimum, where the gradient is zero, that is the change of the loss when the unit goes. H is the
    true Hessian, not Fisher's, so that scores may be negative where the loss bends down. It is estimated
    (Hutchinson): with a random sign z for each unit and d the weights times the sign of their unit,
    z wᵀHd has the mean wᵀHw. Each batch draws new signs; a list of batches given several times over is
    as many draws. The seed makes the scores the same each time. The noise comes from the units that act
    on one another, and in deep networks these are many: thirty draws do not order the channels of a
    ResNet-56 as well as `Fisher` does, which has no such noise.

    Takes a backward pass through the backward pass. For the arguments see `Taylor`; `joint` is "unit".

    *Source: Y. LeCun, J. Denker, S. Solla, 1989 (optimal brain damage), for whole units
    instead of single weights; M. F. Hutchinson, 1990, for the estimate.*

    >>> from torch import nn
    >>> import compressor as cp
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> data = [(torch.randn(8, 2), torch.ones(8, 1))]
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), Hessian(data, nn.functional.mse_loss))
    Scores(Hessian() of Sequential: 3 units in 1 group, ...)
    """

    _: KW_ONLY
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.joint is not Joint.UNIT:
            raise InputError(f"Hessian: joint must be 'unit', got {self.joint!r}: a sign belongs to a unit")

    def measure(self, products: Tensor) -> Tensor:
        """½ wᵀHw."""
        return products / 2

    def raw_unit_scores(self, graph: Graph) -> Values:
        """The estimates [n_units] before groups are made comparable."""
        axes = self.own_axes(graph)
        total = torch.zeros(graph.n_units, dtype=torch.float64)
        if not axes:
            return total.numpy()
        names = {axis.tensor for axis in axes}
        weights = {name: t.detach() for name, t in named_tensors(graph.model).items() if name in names}
        generator, signs = torch.Generator().manual_seed(self.seed), total

        def differentiate(loss: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
            nonlocal signs
            signs = torch.randint(0, 2, (graph.n_units,), generator=generator).to(torch.float64) * 2 - 1
            directions = list(_signed(weights, axes, signs).values())  # in the order of the tensors
            return along(lambda _: directions, loss, tensors)

        def add(products: Mapping[str, Tensor]) -> None:
            total.add_(self.measure(signs * unit_sums(self, graph, axes, products)))

        with plainly(graph.model):
            count = self._run(graph, axes, add, differentiate)
        return (merged(total) / count).numpy()


def _signed(weights: Mapping[str, Tensor], axes: Sequence[Axis], signs: Tensor) -> dict[str, Tensor]:
    """The weights times the signs [n_units] of their units, summed over units and axes."""
    result = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    padded = torch.cat([signs, signs.new_zeros(1)])  # so that PINNED reads zero
    for axis in axes:
        weight = weights[axis.tensor]
        own = padded[torch.from_numpy(axis.units)].reshape(-1, axis.size).sum(dim=0)
        after = [1] * (weight.ndim - axis.axis - 1)
        own = own.to(weight).view(axis.blocks, *[1] * axis.axis, axis.size // axis.blocks, *after)
        rows = weight.reshape(axis.blocks, -1, *weight.shape[1:])
        result[axis.tensor] += (rows * own).reshape(weight.shape)
    return result
