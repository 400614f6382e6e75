"""First-order Taylor expansion: how much the loss changes when a unit is removed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressor.scoring.gradient_scorer import GradientScorer

__all__ = ["Taylor", "taylor"]


@dataclass(frozen=True, repr=False, eq=False)
class Taylor(GradientScorer):
    """Scores a unit by |Σ g·w| over the weights that read it, averaged over batches.

    Setting these weights to zero is removing the unit, so the sum is the first-order change of the
    loss. Adding the weights that write it would count the same change twice. Changes of the loss
    compare across layers, so `normalize` is "none".

    `batches` is any iterable of (inputs, target), (input, …, target), a mapping (the model's
    keyword arguments; the loss gets the output and the mapping) or a tensor (also its own target);
    inputs may be a tuple or a mapping. Tensors are moved to the model's device. `loss(output,
    target)` returns one number. The model runs in eval mode, one batch at a time, and is left as it
    was; frozen parameters are scored like others. `autocast` (e.g. torch.bfloat16) runs the forward
    in mixed precision; float16 may lose small gradients. `progress` is called with the number of
    batches done. Raises InputError where there is no batch.

    *Source: P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, 2019, arXiv 1906.10771,
    equation 9 for Joint.UNIT and Joint.SLICE (a set of weights), equation 8 summed for
    Joint.WEIGHT.* Departure: the absolute value instead of the square; `Fisher` is the square.

    >>> import torch
    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> data = [(torch.ones(4, 2), torch.ones(4, 1))]
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), Taylor(data, torch.nn.functional.mse_loss))
    Scores(Taylor() of Sequential: 3 units in 1 group, ...)
    """

    def measure(self, products: Tensor) -> Tensor:
        """|g·w|."""
        return taylor(products)


def taylor(products: Tensor) -> Tensor:
    """|δ| of first-order changes δ = Σ g·w, element by element."""
    return products.abs()
