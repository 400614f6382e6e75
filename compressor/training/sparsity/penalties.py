"""Penalties as pure functions of rows of weights: what is added to a gradient, and proximal steps.

Legend: K channels, N numbers each. Of a norm's scale γ a channel has one (N = 1), and √N |γ| = |γ|.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["clipped", "lasso", "ridge", "ridge_below", "shrunk", "smooth_lasso"]


def lasso(rows_KN: Tensor, strength: float) -> Tensor:
    """The subgradient s √N w / ‖w‖ of s √N Σ ‖w‖ [K, N]; zero where a row is zero.

    For N = 1 it is s · sign(γ), equation of MaskSparsity's loss.
    *Source: M. Yuan, Y. Lin, 2006 (the group lasso, weighted by √N); N. Jiang, X. Zhao, C. Zhao, Y. An,
    M. Tang, J. Wang, 2022, arXiv 2201.06776 (N = 1).*

    >>> lasso(torch.tensor([[0.5], [-2.0], [0.0]]), 0.1).flatten()
    tensor([ 0.1000, -0.1000,  0.0000])
    """
    if rows_KN.shape[1] == 1:
        return strength * torch.sign(rows_KN)
    norms_K1 = _norms(rows_KN)
    away = norms_K1 == 0  # the subgradient of least length
    return strength * math.sqrt(rows_KN.shape[1]) * rows_KN / norms_K1.masked_fill(away, 1.0)


def smooth_lasso(rows_KN: Tensor, strength: float, rate: float | Tensor) -> Tensor:
    """The gradient s · w where a row is shorter than √N · rate · s, else the lasso's [K, N].

    *Source: the released code of MaskSparsity (smoothL1), whose border depends on the learning rate.*

    >>> smooth_lasso(torch.tensor([[0.5], [-0.005]]), 0.1, 0.1).flatten()
    tensor([ 0.1000, -0.0005])
    """
    border = math.sqrt(rows_KN.shape[1]) * rate * strength
    return torch.where(_norms(rows_KN) < border, strength * rows_KN, lasso(rows_KN, strength))


def ridge(rows_KN: Tensor, strength: float) -> Tensor:
    """The gradient s · w of s/2 Σ w² [K, N].

    >>> ridge(torch.tensor([[0.5], [-2.0]]), 0.1).flatten()
    tensor([ 0.0500, -0.2000])
    """
    return strength * rows_KN


def ridge_below(rows_KN: Tensor, strength: float, bound: float) -> Tensor:
    """The gradient s · w where |w| ≤ `bound`, else 0 [K, N].

    *Source: the released code of MaskSparsity ("shiyan", with a bound of 0.09).*

    >>> ridge_below(torch.tensor([[0.05], [-2.0]]), 0.1, 0.09).flatten()
    tensor([0.0050, 0.0000])
    """
    return torch.where(rows_KN.abs() <= bound, strength * rows_KN, torch.zeros_like(rows_KN))


def shrunk(rows_KN: Tensor, by: float | Tensor) -> Tensor:
    """Rows shorter by √N · `by`, at least 0: the proximal step of the lasso [K, N].

    For N = 1 it is sign(γ) · max(|γ| − by, 0).
    *Source: N. Parikh, S. Boyd, 2014, Proximal Algorithms, section 6.5.1.*

    >>> shrunk(torch.tensor([[0.5], [-2.0], [0.05]]), 0.1).flatten()
    tensor([ 0.4000, -1.9000,  0.0000])
    """
    if rows_KN.shape[1] == 1:
        return torch.sign(rows_KN) * (rows_KN.abs() - by).clamp(min=0)
    norms_K1 = _norms(rows_KN)
    left_K1 = (norms_K1 - math.sqrt(rows_KN.shape[1]) * by).clamp(min=0)
    return rows_KN * (left_K1 / norms_K1.masked_fill(norms_K1 == 0, 1.0))


def clipped(rows_KN: Tensor, bound: float) -> Tensor:
    """Rows no longer than √N · `bound` [K, N]; others as they are.

    >>> clipped(torch.tensor([[0.5], [-2.0]]), 1.0).flatten()
    tensor([ 0.5000, -1.0000])
    """
    norms_K1, most = _norms(rows_KN), math.sqrt(rows_KN.shape[1]) * bound
    return torch.where(norms_K1 > most, rows_KN * (most / norms_K1), rows_KN)


def _norms(rows_KN: Tensor) -> Tensor:
    norms_K1: Tensor = torch.linalg.vector_norm(rows_KN, dim=1, keepdim=True)
    return norms_K1
