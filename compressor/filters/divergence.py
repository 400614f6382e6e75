"""The distance of two distributions of kernel shapes: a symmetric Kullback-Leibler divergence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compressor.errors import InputError
from compressor.filters.basis import Basis
from compressor.filters.histograms import Histogram

__all__ = ["DENSITY_FLOOR", "check_pair", "counts_of", "divergence", "symmetric_divergences"]

# Legend of shape suffixes: K components, B bins, R draws; an ellipsis of axes before.

Values = NDArray[np.float64]
Counts = NDArray[np.int64]

DENSITY_FLOOR = 2.0**-23
"""The density of a bin without kernels: the ε of float32, as published."""


def divergence(p: Histogram, q: Histogram, basis: Basis) -> float:
    """D = Σ_i â_i [KL(P_i‖Q_i) + KL(Q_i‖P_i)], over the components i of the basis with their shares â_i.

    In nats. Symmetric, 0 for equal distributions, about 37 at most, and no metric. What two samples of one
    distribution have is `noise_floor`. Raises InputError for histograms of different kinds or another basis,
    or without kernels.

    P_i are the densities counts / (n · bin width), 0 lifted to 2⁻²³, over their sum.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331, section on distribution shift, and their code
    (the sum of both directions, not its half).*

    >>> import torch
    >>> basis = Basis.cosines((3, 3))
    >>> some, others = (torch.randn(2000, 9) + shift for shift in (0.0, 1.0))
    >>> p, q = Histogram.of(some, basis), Histogram.of(others, basis)
    >>> divergence(p, p, basis), 0.5 < divergence(p, q, basis) == divergence(q, p, basis)
    (0.0, True)
    """
    check_pair(p, q, basis)
    found = symmetric_divergences(counts_of(p), counts_of(q), p.bin_width)
    return float(found @ basis.shares_K.numpy())


def symmetric_divergences(first: Counts, second: Counts, bin_width: float) -> Values:
    """KL(P‖Q) + KL(Q‖P) = Σ (P − Q)(ln P − ln Q) over the last axis, of counts [..., B]."""
    p, q = _probabilities(first, bin_width), _probabilities(second, bin_width)
    found: Values = ((p - q) * (np.log(p) - np.log(q))).sum(axis=-1)
    return found


def _probabilities(counts: Counts, bin_width: float) -> Values:
    # In units of density, as published: about 1e-8 of probability a bin.
    density = counts / (counts.sum(axis=-1, keepdims=True) * bin_width)
    density[density == 0] = DENSITY_FLOOR
    found: Values = density / density.sum(axis=-1, keepdims=True)
    return found


def check_pair(p: Histogram, q: Histogram, basis: Basis) -> None:
    """Nothing for two histograms of one kind, of this basis, with kernels; InputError for others."""
    p.require_like(q)
    if p.axes != basis.axes:
        raise InputError(
            f"the histograms were counted in a basis with axes {p.axes}, not in {basis}, "
            f"which has {basis.axes}: give the basis they were counted in"
        )
    if not p.count or not q.count:
        raise InputError(
            f"a distance takes kernels on both sides, got {p.count} and {q.count} (besides {p.zeros} "
            f"and {q.zeros} of zeros): this layer is empty, or pruned to zeros"
        )


def counts_of(histogram: Histogram) -> Counts:
    """The counts [K, B] as an array."""
    found: Counts = histogram.counts_KB.numpy()
    return found
