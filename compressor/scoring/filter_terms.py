"""What the kernels of a filter say of it: how many are live, how unlike the others it is, how varied.

Shapes: N filters of I kernels of K elements, each filter a row of F = I * K numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressor.filters.quality.sparsity import sparse_peaks
from compressor.observing.precision import widened

__all__ = ["distinctness", "diversity", "live_shares", "originality", "sparse_kernels"]

_PRODUCTS_AT_ONCE = 1 << 22  # 32 MiB of float64


def sparse_kernels(kernels_NIK: Tensor, *, epsilon: float) -> Tensor:
    """True for every kernel whose weights all lie below `epsilon` of the largest of the layer [N, I].

    All kernels of a layer of zeros are.

    >>> sparse_kernels(torch.tensor([[[1.0, 0.0], [0.001, 0.0]]]), epsilon=0.01)
    tensor([[False,  True]])
    """
    peaks_NI = kernels_NIK.abs().amax(dim=2)
    return sparse_peaks(peaks_NI, peaks_NI.max(), epsilon=epsilon)


def live_shares(kernels_NIK: Tensor, *, epsilon: float) -> Tensor:
    """The share of each filter's kernels that are not sparse, in float64 [N]; 0 for a dead filter.

    >>> live_shares(torch.tensor([[[1.0, 0.0], [0.001, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]), epsilon=0.01)
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    return 1 - widened(sparse_kernels(kernels_NIK, epsilon=epsilon)).mean(dim=1)


def distinctness(filters_NF: Tensor) -> Tensor:
    """1 − max_{j≠i} |cos(F_i, F_j)| of every filter, in float64 [N].

    A filter of zeros points nowhere: 1. So does one of a single number, and one without another beside it.

    >>> distinctness(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
    tensor([0., 1., 0.], dtype=torch.float64)
    """
    return _unlike(filters_NF, only_longer=False)


def originality(filters_NF: Tensor) -> Tensor:
    """The same over the longer filters only (of equally long ones those before it), in float64 [N].

    Of two filters that point the same way neither is distinct, and one of them is needed: here the longer one
    keeps what it is worth.

    >>> originality(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
    tensor([0., 1., 1.], dtype=torch.float64)
    """
    return _unlike(filters_NF, only_longer=True)


def diversity(kernels_NIK: Tensor) -> Tensor:
    """The variance entropy of each filter's kernels over the largest that as many could have, in float64 [N].

    H = −Σ p ln p with p the shares of variance along the principal axes of the filter's own kernels, over
    ln min(I − 1, K): 1 where kernels vary in all directions alike, 0 where all are one. Also 1 where no
    number but 0 is possible: of less than three kernels, or kernels of one element.

    >>> diversity(torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]]))
    tensor([1.], dtype=torch.float64)
    >>> diversity(torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]]))
    tensor([0.], dtype=torch.float64)
    """
    kernels_NIK = widened(kernels_NIK)
    count, elements = kernels_NIK.shape[1:]
    most = min(count - 1, elements)
    if most < 2:
        return kernels_NIK.new_ones(len(kernels_NIK))
    centred_NIK = kernels_NIK - kernels_NIK.mean(dim=1, keepdim=True)
    # Of XᵀX and XXᵀ, which have the same eigenvalues but zeros, the smaller.
    centred_NIK = centred_NIK if count >= elements else centred_NIK.mT
    spectra = torch.linalg.eigvalsh(centred_NIK.mT @ centred_NIK).clamp(min=0)
    totals = spectra.sum(dim=1, keepdim=True)
    shares = spectra / torch.where(totals > 0, totals, 1)
    entropies: Tensor = torch.special.entr(shares).sum(dim=1)
    return (entropies / math.log(most)).clamp(0, 1)


def _unlike(filters_NF: Tensor, *, only_longer: bool) -> Tensor:
    filters_NF = widened(filters_NF)
    count, size = filters_NF.shape
    if size == 1 or count == 1:
        return filters_NF.new_ones(count)
    norms_N = torch.linalg.vector_norm(filters_NF, dim=1)
    order_N = torch.argsort(norms_N, descending=True, stable=True)
    scaled = (filters_NF / torch.where(norms_N > 0, norms_N, 1)[:, None])[order_N]
    nearest = []
    rows = max(1, _PRODUCTS_AT_ONCE // count)
    for start in range(0, count, rows):
        own = torch.arange(start, min(start + rows, count), device=scaled.device)
        cosines = (scaled[own] @ scaled.T).abs()
        cosines[own - start, own] = 0
        if only_longer:
            cosines = cosines.tril(diagonal=start - 1)
        nearest.append(cosines.amax(dim=1))
    result = torch.empty_like(norms_N)
    result[order_N] = (1 - torch.cat(nearest)).clamp(min=0)
    return result
