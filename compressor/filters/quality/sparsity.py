"""Sparsity: which kernels of a layer are so small beside its largest weight that they do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import require_finite
from compressor.filters.scaling import kernel_peaks

__all__ = [
    "EPSILONS",
    "Comparison",
    "check_kernels",
    "sparse_kernels",
    "sparse_peaks",
    "sparsities",
    "sparsity",
]

# Legend of shape suffixes: N kernels, K elements of a kernel.

# The shares move a lot above 2 %, so a report shows several.
EPSILONS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)


class Comparison(Enum):
    """How a kernel's largest |weight| is compared with the threshold t = ε · max|W| of its layer.

    `BELOW` (peak < t, t = ε · max|W|) is that of torchconvquality and of CNN Filter DB's notebook, `AT_MOST`
    (peak ≤ t, t = max|W| / (1/ε)) that of the study of robust networks (arXiv 2204.02481). They differ for
    kernels that lie on the threshold, and each is evaluated in the arithmetic of its source, so that these
    fall to the side where they fell there.

    >>> kernels = torch.tensor([[1.0, 0.5], [0.01, 0.0]])
    >>> [sparsity(kernels, comparison=how) for how in Comparison]
    [0.0, 0.5]
    """

    BELOW = "<"
    AT_MOST = "<="


def sparse_kernels(
    kernels_NK: Tensor, *, epsilon: float = 0.01, comparison: Comparison = Comparison.BELOW
) -> Tensor:
    """True for every kernel whose weights are all small beside the largest of the layer [N].

    A layer of zeros is sparse through and through: torchconvquality says so too (S = 1), and so does `≤`;
    the authors' first notebook says S = 0 there. Raises InputError for kernels that are no matrix, none at
    all, or not finite, and for an ε outside 0..1.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331 (ε = 0.01); the `≤`: their study of robust
    networks, 2022, arXiv 2204.02481.*

    >>> sparse_kernels(torch.tensor([[1.0, 0.0], [0.009, -0.001], [0.0, 0.2]]))
    tensor([False,  True, False])
    """
    check_kernels(kernels_NK)
    peaks_N = kernel_peaks(kernels_NK)
    return sparse_peaks(peaks_N, peaks_N.max(), epsilon=epsilon, comparison=comparison)


def sparse_peaks(
    peaks_N: Tensor, layer_peak: Tensor, *, epsilon: float = 0.01, comparison: Comparison = Comparison.BELOW
) -> Tensor:
    """The same from the largest |weight| of each kernel [N] and of the whole layer [].

    For layers that are read in pieces. float16 and bfloat16 are compared in float32.

    >>> sparse_peaks(torch.tensor([0.3, 0.02]), torch.tensor(4.0))
    tensor([False,  True])
    """
    if not 0 < epsilon < 1:
        raise InputError(
            f"epsilon must lie between 0 and 1 (0.01 for 1 % of the layer's peak), got {epsilon!r}"
        )
    if not isinstance(comparison, Comparison):
        raise InputError(f"comparison is Comparison.BELOW or Comparison.AT_MOST, got {comparison!r}")
    if peaks_N.dtype in (torch.float16, torch.bfloat16):
        peaks_N, layer_peak = peaks_N.float(), layer_peak.float()
    if comparison is Comparison.AT_MOST:
        return peaks_N <= layer_peak / (1 / epsilon)
    return (peaks_N < epsilon * layer_peak) | (layer_peak == 0)


def sparsity(
    kernels_NK: Tensor, *, epsilon: float = 0.01, comparison: Comparison = Comparison.BELOW
) -> float:
    """S: the share of sparse kernels, 0 to 1; see `sparse_kernels`.

    >>> sparsity(torch.tensor([[1.0, 0.0], [0.009, -0.001], [0.0, 0.2], [0.0, 0.0]]))
    0.5
    """
    sparse_N = sparse_kernels(kernels_NK, epsilon=epsilon, comparison=comparison)
    return int(sparse_N.sum()) / len(sparse_N)


def sparsities(
    kernels_NK: Tensor,
    *,
    epsilons: Sequence[float] = EPSILONS,
    comparison: Comparison = Comparison.BELOW,
) -> dict[float, float]:
    """S at several ε, from one reading of the kernels.

    >>> sparsities(torch.tensor([[1.0], [0.03], [0.004], [0.0]]), epsilons=(0.01, 0.05))
    {0.01: 0.5, 0.05: 0.75}
    """
    check_kernels(kernels_NK)
    peaks_N = kernel_peaks(kernels_NK)
    layer_peak = peaks_N.max()
    return {
        float(epsilon): int(sparse_peaks(peaks_N, layer_peak, epsilon=epsilon, comparison=comparison).sum())
        / len(peaks_N)
        for epsilon in epsilons
    }


def check_kernels(kernels_NK: Tensor, named: str = "kernels") -> None:
    """Nothing for a matrix of finite kernels [N, K], one at least; raises InputError for others."""
    if kernels_NK.ndim != 2 or kernels_NK.numel() == 0 or not kernels_NK.is_floating_point():
        raise InputError(
            f"{named}: expected a matrix of kernels [N, K] of a floating type with one kernel at least, got "
            f"{kernels_NK.dtype} of shape {list(kernels_NK.shape)}; kernel_matrix(weight) makes one"
        )
    require_finite(kernels_NK, named)
