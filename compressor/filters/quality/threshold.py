"""The random threshold T_H(n): the least variance entropy to expect of a layer of n random kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compressor.errors import InputError

__all__ = ["RandomThreshold", "entropy_ratio"]


@dataclass(frozen=True)
class RandomThreshold:
    """T_H(n) = L / (1 + exp(−k (log2 n − x0))) + b, a curve through the least H of random layers.

    n is the number of kernels. A layer above it varies in all directions alike, as random kernels do: it
    learnt little. `elements` is K, the number of elements of the kernels it holds for; `least_kernels` the
    n from which on it means something, which is ours: where random layers reach half of the largest entropy,
    log10 K. `fitted` says where the constants come from.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331 (the constants for K = 9, in full from their
    code).*

    >>> from compressor.filters.quality import PUBLISHED_THRESHOLD
    >>> [round(PUBLISHED_THRESHOLD(n), 3) for n in (2, 8, 64, 4096)]
    [-0.009, 0.509, 0.906, 0.951]
    """

    elements: int
    height: float
    middle: float
    slope: float
    base: float
    least_kernels: int
    fitted: str

    def __call__(self, n: int) -> float:
        """T_H of a layer of n kernels, 0 or less for very few; InputError for none."""
        if n < 1:
            raise InputError(f"a layer has one kernel or more, got n = {n}")
        return self.height / (1 + math.exp(-self.slope * (math.log2(n) - self.middle))) + self.base

    def judges(self, n: int) -> bool:
        """Whether n kernels are enough to tell random kernels from others."""
        return n >= self.least_kernels


def entropy_ratio(entropy: float, n: int, threshold: RandomThreshold) -> float | None:
    """H / T_H(n): about 1 and more for random layers, 0 for one shape; None where T_H(n) ≤ 0 or n = 0.

    There the original divides by a negative number (n = 1 and 2). `threshold.judges(n)` tells whether
    n is large enough for the ratio to mean something.

    >>> from compressor.filters.quality import PUBLISHED_THRESHOLD
    >>> round(entropy_ratio(0.5073, 8192, PUBLISHED_THRESHOLD), 4)
    0.5333
    >>> entropy_ratio(0.0, 2, PUBLISHED_THRESHOLD) is None
    True
    """
    least = threshold(n) if n else 0.0
    return entropy / least if least > 0 else None
