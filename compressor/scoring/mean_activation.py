"""Mean activation: how strong a channel is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.observing.precision import wide_type
from compressor.scoring.activation_scorer import ActivationScorer

__all__ = ["MeanActivation", "mean_sizes"]


@dataclass(frozen=True, repr=False, eq=False)
class MeanActivation(ActivationScorer):
    """Scores a channel by the mean of its absolute activations, over positions and samples.

    For the arguments see `ActivationScorer`.

    *Source: P. Molchanov, S. Tyree, T. Karras, T. Aila, J. Kautz, 2017, arXiv 1611.06440, section 2.2
    (Θ_MA).* Departures: the absolute value, which is the same behind a ReLU and makes sense elsewhere;
    groups are divided by their mean instead of layers by their L2 norm.

    >>> import torch
    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.GELU(), torch.nn.Linear(3, 1))
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), MeanActivation([torch.randn(64, 2)]))
    Scores(MeanActivation() of Sequential: 3 units in 1 group, ...)
    """

    def measure(self, maps: Tensor) -> Tensor:
        """The sum over samples of the mean sizes."""
        return mean_sizes(maps).sum(dim=0)


def mean_sizes(maps: Tensor) -> Tensor:
    """The mean of |a| over the positions of each map [N, C, …], in float64 [N, C].

    >>> import torch
    >>> mean_sizes(torch.tensor([[[1.0, 3.0], [-1.0, 1.0]]]))
    tensor([[2., 1.]], dtype=torch.float64)
    """
    flat = maps.flatten(2)
    sums: Tensor = torch.linalg.vector_norm(flat, ord=1, dim=2, dtype=wide_type(maps))  # without a wide copy
    return sums / flat.shape[2]
