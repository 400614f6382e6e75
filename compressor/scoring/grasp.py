"""GraSP: how much of the gradient's flow is lost with a channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from compressor.core.graph import Axis, Graph
from compressor.core.reference import plainly
from compressor.scoring.gradient_scorer import GradientScorer
from compressor.scoring.gradients import Differentiate
from compressor.scoring.second_order import along
from compressor.scoring.weights import BOTH, weight_axes

__all__ = ["GraSP", "flow_gradients"]


@dataclass(frozen=True, repr=False, eq=False)
class GraSP(GradientScorer):
    """Scores a unit by θᵀHg over the weights that read it: what removing it takes from ½‖g‖².

    g are the gradients of all filters and matrices that hold a unit, H their second derivatives. A
    negative score means that the gradient grows when the unit goes: these go first. Made for networks
    before training; at a minimum g is zero and says nothing. Takes a backward pass through the backward
    pass of each batch, on torch's plain attention and recurrent kernels. For the arguments see `Taylor`.

    *Source: C. Wang, G. Zhang, R. Grosse, 2020, arXiv 2002.07376, S(−θ) = −θ ⊙ Hg, whose
    largest are removed; here the sign is turned.* Departures: sums over units; each batch has its own
    g, so that one pass is enough; no temperature (the paper divides logits by 200: do so in `loss`).

    >>> import torch
    >>> from torch import nn
    >>> import compressor as cp
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> data = [(torch.randn(8, 2), torch.ones(8, 1))]
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), GraSP(data, nn.functional.mse_loss))
    Scores(GraSP() of Sequential: 3 units in 1 group, ...)
    """

    def measure(self, products: Tensor) -> Tensor:
        """θ · Hg."""
        return products

    def _run(
        self,
        graph: Graph,
        axes: Sequence[Axis],
        add: Callable[[dict[str, Tensor]], None],
        differentiate: Differentiate | None = None,
    ) -> int:
        with plainly(graph.model):
            every = [*axes, *weight_axes(graph, BOTH)]
            return super()._run(graph, every, add, differentiate or flow_gradients)


def flow_gradients(loss: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Hg, the gradient of ½‖g‖² by each tensor, where g are the gradients of the loss.

    >>> import torch
    >>> weight = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> flow_gradients((weight**3).sum(), [weight])  # g = 3 w², H = diag(6 w)
    [tensor([ 18., 144.])]
    """
    return along(lambda gradients: gradients, loss, tensors)
