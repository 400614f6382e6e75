"""Norms of a layer's weight, as it is and standardised."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from compressor.filters.bank import kernel_matrix
from compressor.observing.precision import widened

__all__ = ["Norms", "norms"]


@dataclass(frozen=True)
class Norms:
    """The sum of |w| and the root of the sum of w² over a whole weight; `standardised`: of (w − mean) / std.

    The standardised norms are None for a weight without variance, where the original gives NaN.
    """

    l1: float
    l2: float
    l1_standardised: float | None
    l2_standardised: float | None


def norms(weight: Tensor) -> Norms:
    """The norms of a weight [O, I, *k], in float64.

    With the unbiased std of torchconvquality the standardised L2 norm is √(n − 1) for any n weights: it tells
    their number and nothing else. The standardised L1 norm over n is a measure of tails: √(2/π) = 0.80
    for Gaussian weights, 0.71 for Laplacian ones.

    *Source: torchconvquality (`norm_l1`, `norm_l2`, `norm_l1_norm`, `norm_l2_norm`), whose accumulation is
    in float32.*

    >>> import torch
    >>> norms(torch.tensor([[[3.0, -4.0]]]))
    Norms(l1=7.0, l2=5.0, l1_standardised=1.414..., l2_standardised=1.0)
    """
    kernel_matrix(weight)  # for its checks
    weights = widened(weight.detach())
    l1, l2 = _l1(weights), _l2(weights)
    if bool((weights == weights.flatten()[0]).all()):
        return Norms(l1, l2, None, None)
    centred = weights - weights.mean()
    std = _l2(centred) / math.sqrt(weights.numel() - 1)
    return Norms(l1, l2, _l1(centred) / std, _l2(centred) / std)


def _l1(weights: Tensor) -> float:
    return float(weights.abs().sum())


def _l2(weights: Tensor) -> float:
    """Squares of tiny and of huge weights leave the range of numbers: taken relative to the largest."""
    peak = float(weights.abs().max())
    return peak * float((weights / peak).square().sum().sqrt()) if peak else 0.0
