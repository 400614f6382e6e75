"""The maths of a sketch in plain NumPy, as one would write it, and tuned: what ours is timed against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BASELINES", "Kernels", "plain", "tuned"]

Kernels = npt.NDArray[np.float32]
_EPSILONS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)
_BINS, _LIMIT = 70, 3.2
_CHUNK = 1 << 14  # the fastest of those tried


def plain(
    kernels_NK: Kernels, mean_K: npt.NDArray[Any], components_KK: npt.NDArray[Any], rows: int
) -> list[Any]:
    """Counters, four covariances by `np.cov`, nine histograms by `np.histogram`, on the whole layer."""
    peaks_N = np.abs(kernels_NK).max(axis=1)
    peak = peaks_N.max()
    counters = [
        (np.count_nonzero(peaks_N < e * peak), np.count_nonzero(peaks_N <= e * peak)) for e in _EPSILONS
    ]
    clean_N = peaks_N >= 0.01 * peak
    clean_OI = clean_N.reshape(rows, -1)
    dead = np.count_nonzero(~clean_OI.any(axis=1)), np.count_nonzero(~clean_OI.any(axis=0))
    scaled_NK = kernels_NK / np.where(peaks_N == 0, 1, peaks_N)[:, None]
    moments = [
        (len(x), x.mean(axis=0), np.cov(x, rowvar=False))
        for x in (
            kernels_NK.astype(np.float64),
            kernels_NK[clean_N].astype(np.float64),
            scaled_NK.astype(np.float64),
            scaled_NK[clean_N].astype(np.float64),
        )
    ]
    coefficients_NK = (scaled_NK.astype(np.float64) - mean_K) @ components_KK.T
    counts = [np.histogram(c, bins=_BINS, range=(-_LIMIT, _LIMIT))[0] for c in coefficients_NK.T]
    return [np.count_nonzero(peaks_N == 0), counters, dead, moments, np.stack(counts)]


def tuned(
    kernels_NK: Kernels, mean_K: npt.NDArray[Any], components_KK: npt.NDArray[Any], rows: int
) -> list[Any]:
    """The same in pieces that fit the cache, with one bincount, centred products, and no work done twice.

    Bins are decided by a matrix product, so a few kernels in a million fall on the other side of an edge.
    """
    peak = max(
        float(np.abs(part).max()) for part in np.array_split(kernels_NK, max(1, len(kernels_NK) // _CHUNK))
    )
    offsets = np.arange(len(components_KK)) * _BINS
    total = np.zeros(len(components_KK) * _BINS, dtype=np.int64)
    counters = np.zeros((len(_EPSILONS), 2), dtype=np.int64)
    clean_N = np.empty(len(kernels_NK), dtype=bool)
    moments = []
    zeros = 0
    for start in range(0, len(kernels_NK), _CHUNK):
        part_NK = kernels_NK[start : start + _CHUNK]
        peaks_N = np.abs(part_NK).max(axis=1)
        zeros += np.count_nonzero(peaks_N == 0)
        counters += [
            (np.count_nonzero(peaks_N < e * peak), np.count_nonzero(peaks_N <= e * peak)) for e in _EPSILONS
        ]
        clean = np.greater_equal(peaks_N, 0.01 * peak, out=clean_N[start : start + _CHUNK])
        scaled_NK = part_NK / np.where(peaks_N == 0, 1, peaks_N)[:, None]
        coefficients_NK = (scaled_NK.astype(np.float64) - mean_K) @ components_KK.T
        bins = ((coefficients_NK + _LIMIT) * (_BINS / (2 * _LIMIT))).astype(np.int64) + offsets
        total += np.bincount(bins.ravel(), minlength=len(total))
        whole = [_moments(part_NK), _moments(scaled_NK)]
        moments.append(
            whole if clean.all() else [*whole, _moments(part_NK[clean]), _moments(scaled_NK[clean])]
        )
    clean_OI = clean_N.reshape(rows, -1)
    dead = np.count_nonzero(~clean_OI.any(axis=1)), np.count_nonzero(~clean_OI.any(axis=0))
    return [zeros, counters, dead, moments, total.reshape(-1, _BINS)]


def _moments(rows_NK: Kernels) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any]]:
    wide = rows_NK.astype(np.float64)
    mean = wide.mean(axis=0)
    wide -= mean
    return len(wide), mean, wide.T @ wide


BASELINES: Mapping[str, Callable[..., list[Any]]] = {"NumPy": plain, "NumPy, tuned": tuned}
