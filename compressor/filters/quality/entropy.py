"""Variance entropy: over how many directions the kernels of a layer spread their variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import require_finite
from compressor.filters.moments import Moments
from compressor.filters.quality.populations import Population
from compressor.filters.quality.sparsity import Comparison, check_kernels

__all__ = [
    "effective_shapes",
    "entropy_of_kernels",
    "entropy_of_moments",
    "entropy_of_spectrum",
    "variance_entropy",
]

# Legend of shape suffixes: N kernels, K elements of a kernel.


def variance_entropy(
    kernels_NK: Tensor,
    *,
    population: Population = Population.RAW,
    epsilon: float = 0.01,
    comparison: Comparison = Comparison.BELOW,
) -> float:
    """H = −Σ p_i log10 p_i, p_i the share of the variance along the i-th principal axis: 0 to log10 K.

    0: all kernels are multiples of one shape (about their mean); log10 K (0.954 for 3×3): no direction is
    preferred, as in random kernels. `epsilon` and `comparison` say which kernels are sparse, for the
    populations without them.

    Kernels without variance (one kernel, equal kernels, none in the population) have one shape at most:
    H = 0 here, where the originals give NaN for one kernel. Singular values of exactly 0 add nothing, where
    torchconvquality gives NaN. Everything is computed in float64, where the originals stay in float32 (2e-7).

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331, section "variance entropy"; their code.*

    >>> round(variance_entropy(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 4)
    0.301
    >>> variance_entropy(torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])) < 1e-12
    True
    """
    check_kernels(kernels_NK)
    return entropy_of_kernels(population.of(kernels_NK, epsilon=epsilon, comparison=comparison))


def entropy_of_kernels(kernels_NK: Tensor) -> float:
    """H of exactly these kernels, finite and perhaps none.

    >>> entropy_of_kernels(torch.ones(5, 9))
    0.0
    """
    if kernels_NK.dtype == torch.float64 and len(kernels_NK):
        # Squares of the largest and smallest float64 leave its range; a power of two changes no digit of H.
        _, exponent = math.frexp(float(kernels_NK.abs().max()))
        if abs(exponent) > 400:
            kernels_NK = kernels_NK / math.ldexp(1.0, exponent - 1)
    return entropy_of_moments(Moments.of(kernels_NK))


def entropy_of_moments(moments: Moments) -> float:
    """H of the rows that these are the moments of; 0 where there are none, or all are equal.

    >>> entropy_of_moments(Moments.of(torch.full((1000, 9), 0.1)))
    0.0
    """
    # The mean of equal rows is off by rounding, and H knows no scale: without this line the "variance" of a
    # thousand kernels of 0.1, some 1e-30, has the entropy of noise. Float32 values that differ at all lie
    # 2⁻²⁴ apart, and the mean of float64 is good to 2⁻⁴⁶ up to millions of rows.
    require_finite(moments.scatter_KK, "the scatter of the kernels")
    rounding = moments.count * float(moments.mean_K.square().sum()) * 2.0**-92
    if float(moments.scatter_KK.trace()) <= rounding:
        return 0.0
    return entropy_of_spectrum(moments.spectrum)


def entropy_of_spectrum(spectrum_K: Tensor) -> float:
    """H of variances along principal axes [K], in any order and on any scale; 0 where all are zero.

    Raises InputError for negative variances, or such that are not finite.

    >>> entropy_of_spectrum(torch.tensor([3.0, 3.0, 0.0])) - 0.30103 < 1e-6
    True
    >>> entropy_of_spectrum(torch.zeros(9))
    0.0
    """
    variances_K = spectrum_K.detach().double().flatten()
    if not bool(((variances_K >= 0) & variances_K.isfinite()).all()):
        raise InputError(
            f"a spectrum holds variances: finite and not negative, got {variances_K.tolist()}; squares of "
            "singular values are, eigenvalues of a covariance are after clamping at zero"
        )
    peak = variances_K.max() if len(variances_K) else variances_K.sum()
    if peak == 0:
        return 0.0
    shares_K = variances_K / peak
    shares_K = shares_K / shares_K.sum()
    return max(0.0, float(-torch.special.xlogy(shares_K, shares_K).sum()) / math.log(10))


def effective_shapes(entropy: float) -> float:
    """10^H: how many kernel shapes that vary equally would have this entropy, 1 to K.

    >>> round(effective_shapes(0.9542425), 5)
    9.0
    """
    return float(10**entropy)
