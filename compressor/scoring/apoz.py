"""APoZ: how seldom a channel is silent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.errors import ScoreError
from compressor.observing.precision import widened
from compressor.scoring.activation_scorer import ActivationScorer
from compressor.scoring.units import Values

__all__ = ["APoZ", "active_fractions"]


@dataclass(frozen=True, repr=False, eq=False)
class APoZ(ActivationScorer):
    """Scores a channel by 1 − its average percentage of zeros, over positions and samples.

    It needs activations with exact zeros (ReLU, hard swish …): where not a single one is zero it raises
    ScoreError, for all channels would look alike. For the arguments see `ActivationScorer`.

    *Source: H. Hu, R. Peng, Y.-W. Tai, C.-K. Tang, 2016, arXiv 1607.03250.* Departures:
    zeros are counted where a channel is read, which is behind a pooling if there is one; `normalize` is
    "mean", where the paper compares within a layer.

    >>> import torch
    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), APoZ([torch.randn(64, 2)]))
    Scores(APoZ() of Sequential: 3 units in 1 group, ...)
    """

    def measure(self, maps: Tensor) -> Tensor:
        """The sum over samples of the fractions that are not zero."""
        return active_fractions(maps).sum(dim=0)

    def check(self, raw: Values) -> None:
        """ScoreError where no activation at all was zero."""
        known = raw[~np.isnan(raw)]
        if len(known) and (known == 1).all():
            raise ScoreError(
                f"{self!r}: not one activation of {len(known)} units is exactly zero, expected those of "
                "ReLUs; score a model with smooth activations with MeanActivation(batches)"
            )


def active_fractions(maps: Tensor) -> Tensor:
    """The fraction of the positions of each map [N, C, …] that are not zero, in float64 [N, C].

    >>> active_fractions(torch.tensor([[[0.0, 2.0], [0.0, 0.0], [-1.0, 1.0]]]))
    tensor([[0.5000, 0.0000, 1.0000]], dtype=torch.float64)
    """
    flat = maps.flatten(2)
    return widened(torch.count_nonzero(flat, dim=2)) / flat.shape[2]
