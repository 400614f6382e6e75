"""The noise floor of drifts: the distance that two samples of one distribution have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressor.errors import InputError
from compressor.filters.basis import Basis
from compressor.filters.divergence import Counts, check_pair, counts_of, symmetric_divergences
from compressor.filters.histograms import Histogram

__all__ = ["Noise", "noise_floor"]

# Legend of shape suffixes: K components, B bins, R draws.

_EXACT_DRAWS_TO = 10**8  # kernels; NumPy's end at 1e9


@dataclass(frozen=True)
class Noise:
    """The D that two samples of one distribution have: its expectation, and what it rarely exceeds.

    `high` is three standard deviations above, √Σ (â_i σ_i)² with σ_i that of component i: kernels of one
    distribution exceed it in 0.3 to 1 % of cases (measured on random kernels and on halves of trained
    layers).
    """

    expected: float
    high: float


def noise_floor(p: Histogram, q: Histogram, basis: Basis, *, draws: int = 100, seed: int = 0) -> Noise:
    """The D to expect if both sets of kernels came from one distribution: the kernels shuffled between them.

    The kernels of both are pooled and dealt again at random, as many to each side as there were (`draws`
    times): if there is no difference, every deal is as likely as the real one, so its mean D has no bias,
    however few kernels there are. Only the counts are needed: a deal draws from each component's bins without
    replacement; from 1e8 kernels on with, which then is the same.

    For many kernels it tends to Σ_i â_i (B_i − 1)(1/n + 1/m), B_i the number of occupied bins: 69 (1/n + 1/m)
    at the most; few kernels have much more, since each bin that one side lacks counts ln 1e8.

    *Source: a permutation test; E. J. G. Pitman, 1937, "Significance tests which may be applied to samples
    from any populations", Supplement to J. R. Stat. Soc. 4. For this use ours.*

    >>> import torch
    >>> from compressor.filters import divergence
    >>> basis = Basis.cosines((3, 3))
    >>> some, others = (Histogram.of(torch.randn(2000, 9), basis) for _ in range(2))
    >>> 0.5 < divergence(some, others, basis) / noise_floor(some, others, basis).expected < 2
    True
    """
    check_pair(p, q, basis)
    if draws < 2:
        raise InputError(f"a noise floor takes 2 draws or more, got {draws}")
    generator = np.random.default_rng(seed)
    pooled_KB = counts_of(p) + counts_of(q)
    first_RKB, second_RKB = _dealt(pooled_KB, p.count, q.count, draws, generator)
    found_RK = symmetric_divergences(first_RKB, second_RKB, p.bin_width)
    shares_K = basis.shares_K.numpy()
    expected = float(found_RK.mean(axis=0) @ shares_K)
    spread = float(np.linalg.norm(found_RK.std(axis=0, ddof=1) * shares_K))
    return Noise(expected, expected + 3 * spread)


def _dealt(
    pooled_KB: Counts, n: int, m: int, draws: int, generator: np.random.Generator
) -> tuple[Counts, Counts]:
    """Counts of both sides [R, K, B] for kernels dealt at random."""
    if n + m <= _EXACT_DRAWS_TO:
        parts = [
            generator.multivariate_hypergeometric(row_B, n, size=draws, method="marginals")
            for row_B in pooled_KB
        ]
        first_RKB = np.stack(parts, axis=1)
        return first_RKB, pooled_KB - first_RKB
    chances_KB = pooled_KB / pooled_KB.sum(axis=1, keepdims=True)
    first_RKB, second_RKB = (
        generator.multinomial(size, chances_KB, (draws, len(pooled_KB))) for size in (n, m)
    )
    return first_RKB, second_RKB
