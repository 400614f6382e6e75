"""Diagonal Fisher information: the second-order change of the loss at a minimum."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressor.scoring.gradient_scorer import GradientScorer

__all__ = ["Fisher", "fisher"]


@dataclass(frozen=True, repr=False, eq=False)
class Fisher(GradientScorer):
    """Scores a unit by ½ (Σ g·w)² over the weights that read it, averaged over batches.

    At a minimum of a log-likelihood loss the Hessian is the Fisher information, the mean of g gᵀ;
    its diagonal entry for a gate on the unit is the mean of (Σ g·w)², and half of it the change of
    the loss when the gate closes. `Joint.WEIGHT` takes the diagonal over single weights,
    ½ Σ (g·w)². For the arguments see `Taylor`.

    *Source: L. Theis, I. Korshunova, A. Tejani, F. Huszár, 2018, arXiv 1801.05787; summed over
    coupled layers before squaring: L. Liu et al., 2021, arXiv 2108.00708.* Departures: both square
    the gradient of each example, here that of each batch is squared, which is theirs for batches of
    one example; and both differentiate by a gate on the activation, which is the same number as the
    sum over the weights that read it.

    >>> import torch
    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> data = [(torch.ones(1, 2), torch.ones(1, 1)), (torch.zeros(1, 2), torch.ones(1, 1))]
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), Fisher(data, torch.nn.functional.mse_loss))
    Scores(Fisher() of Sequential: 3 units in 1 group, ...)
    """

    def measure(self, products: Tensor) -> Tensor:
        """½ (g·w)²."""
        return fisher(products)


def fisher(products: Tensor) -> Tensor:
    """½ δ² of first-order changes δ = Σ g·w, element by element."""
    return products.square() / 2
