"""The three populations of kernels whose variance entropy is in use: their numbers are not comparable."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from compressor.filters.quality.sparsity import Comparison, sparse_kernels
from compressor.filters.scaling import scaled_kernels

__all__ = ["Population"]


class Population(Enum):
    """Which kernels of a layer, and on what scale.

    `RAW`: all, as they are (CNN Filter DB's notebook, torchconvquality's `variance_entropy`). `CLEAN`:
    without the sparse ones (torchconvquality's `variance_entropy_clean`). `SCALED_CLEAN`: without the
    sparse ones, each divided by its largest |weight|, so that large kernels do not drown the small (the
    study of robust networks, arXiv 2204.02481, where sparse is ≤).

    >>> import torch
    >>> kernels = torch.tensor([[4.0, 0.0], [0.0, -1.0], [0.001, 0.0]])
    >>> Population.SCALED_CLEAN.of(kernels)
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """

    RAW = "raw"
    CLEAN = "clean"
    SCALED_CLEAN = "scaled clean"

    def of(
        self, kernels_NK: Tensor, *, epsilon: float = 0.01, comparison: Comparison = Comparison.BELOW
    ) -> Tensor:
        """The kernels of this population [M, K]; none may be left (a layer of zeros)."""
        if self is Population.RAW:
            return kernels_NK
        sparse_N = sparse_kernels(kernels_NK, epsilon=epsilon, comparison=comparison)
        return self.without(kernels_NK, sparse_N)

    def without(self, kernels_NK: Tensor, sparse_N: Tensor) -> Tensor:
        """The same, where it is known already which kernels are sparse [N]."""
        if self is Population.RAW:
            return kernels_NK
        clean_MK = kernels_NK[~sparse_N] if bool(sparse_N.any()) else kernels_NK
        return scaled_kernels(clean_MK) if self is Population.SCALED_CLEAN else clean_MK
