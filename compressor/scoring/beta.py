"""The formulas of Beta-Rank, on tensors.

Symbols: O filters in G groups, P positions of the output.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Direction", "DirectionLike", "betas", "of_mean_1", "stretched"]

# A layer computes in float32, so below this part of its largest σ there is rounding and no variation.
_RESOLUTION = 1e-6


class Direction(Enum):
    """Which σ is divided by which: σ_out / σ_in as in the authors' code, or σ_in / σ_out as in equation 5.

    The two rank nearly opposite. The published results presumably come from the code.

    >>> Direction("code")
    'code'
    """

    CODE = "code"
    PAPER = "paper"

    def __repr__(self) -> str:
        return repr(self.value)


DirectionLike = Direction | Literal["code", "paper"]


def betas(sigma_out_OP: Tensor, sigma_in_GP: Tensor, direction: Direction) -> Tensor:
    """β of every filter at every position [O, P]: the ratio of the spreads of what it writes and reads.

    Equation 5 has β = sqrt(Σ_j (x_i^j - μ_i)² / Σ_j (x_{i+1}^j - μ_{i+1})²) over samples j, which is
    σ_in / σ_out; the code divides the other way round. A filter's σ_in is that of its group.

    Where the divisor does not vary (below 1e-6 of the layer's largest, which is rounding), β is 0: that
    position says nothing. As infinities such positions would make all filters of the layer equal.

    >>> betas(torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[2.0, 0.0]]), Direction.CODE)
    tensor([[0.5000, 0.0000],
            [1.5000, 0.0000]])
    """
    own_in_OP = sigma_in_GP.repeat_interleave(len(sigma_out_OP) // len(sigma_in_GP), dim=0)
    code = direction is Direction.CODE
    above, below = (sigma_out_OP, own_in_OP) if code else (own_in_OP, sigma_out_OP)
    return torch.where(below > _RESOLUTION * below.max(), above / below, 0.0)


def of_mean_1(scores_O: Tensor) -> Tensor:
    """The scores of a layer over their mean; zeros stay zeros.

    >>> of_mean_1(torch.tensor([1.0, 3.0]))
    tensor([0.5000, 1.5000])
    """
    mean = scores_O.mean()
    return torch.where(mean > 0, scores_O / mean, scores_O)


def stretched(scores_O: Tensor) -> Tensor:
    """The scores of a layer from 0 for the least to 1 for the largest; as they are where all are equal.

    The code then divides 0 by 0, and its order of the filters is arbitrary.

    >>> stretched(torch.tensor([1.0, 3.0, 2.0])), stretched(torch.tensor([4.0]))
    (tensor([0.0000, 1.0000, 0.5000]), tensor([4.]))
    """
    least, largest = scores_O.aminmax()
    return torch.where(largest > least, (scores_O - least) / (largest - least), scores_O)
