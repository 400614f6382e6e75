"""Kernels divided by their largest absolute element, so that the shape is left and the size is gone."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kernel_peaks", "scaled_kernels"]

# Legend of shape suffixes: N kernels, K elements of a kernel.


def kernel_peaks(kernels_NK: Tensor) -> Tensor:
    """The largest absolute element of every kernel [N], in the kernels' dtype.

    >>> kernel_peaks(torch.tensor([[1.0, -3.0], [0.0, 0.0]]))
    tensor([3., 0.])
    """
    return kernels_NK.abs().amax(dim=1)


def scaled_kernels(kernels_NK: Tensor) -> Tensor:
    """Every kernel f [N, K] as f / max|f|; kernels of zeros stay as they are.

    float16 and bfloat16 are widened to float32 before the division, where the authors' notebook rounds to
    float16 first and then divides.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331, equation 9 (as in the authors' code).*

    >>> scaled_kernels(torch.tensor([[1.0, -4.0], [0.0, 0.0]]))
    tensor([[ 0.2500, -1.0000],
            [ 0.0000,  0.0000]])
    """
    if kernels_NK.dtype in (torch.float16, torch.bfloat16):
        kernels_NK = kernels_NK.float()
    peaks_N1 = kernel_peaks(kernels_NK)[:, None]
    return kernels_NK / torch.where(peaks_N1 == 0, torch.ones_like(peaks_N1), peaks_N1)
