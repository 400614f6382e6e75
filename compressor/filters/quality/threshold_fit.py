"""The fit of a random threshold to simulated layers, for kernels of any size."""

from __future__ import annotations

import math

import numpy as np

from compressor.errors import InputError
from compressor.filters.quality.random_layers import Values, least_random_entropy
from compressor.filters.quality.threshold import RandomThreshold

__all__ = ["fit_random_threshold"]

_LEAST_MIDDLE = -2.0
_OCTAVES = 11  # beyond n = K: by then H is within 1e-3 of log10 K


def fit_random_threshold(
    elements: int, *, draws: int = 1000, repeats: int = 5, seed: int = 0
) -> RandomThreshold:
    """The random threshold of kernels of K `elements`, from simulated layers of normal kernels.

    For n = 2, 4, … 2^11 K kernels, the least H of `draws` layers (mean of `repeats` such); the curve is
    fitted where that is at least half of log10 K. What is missing to log10 K falls over three orders of
    magnitude, so squares are weighted by its inverse, and L + b is log10 K: the least H reaches it for n to
    ∞, and a curve that ended above would call nothing random. Residuals are below 0.01 for few kernels and
    5e-4 from n = 16 K on.

    The least of 1000 draws is what the published constants lie on at n = 8 and 16 (0.509, 0.722); between 64
    and 512 these lie up to 0.01 above it, and from 4096 on 0.002 below.

    K = 9 takes half a second, K = 49 seven; the time grows with K³. Raises InputError for less than two
    elements.

    *Source: the form of the curve: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331; simulation and fit are
    ours.*

    >>> threshold = fit_random_threshold(3, draws=200, repeats=1)
    >>> threshold.least_kernels, abs(threshold(4096) - 0.476) < 1e-3
    (16, True)
    """
    if elements < 2:
        raise InputError(
            f"kernels of {elements} element have one direction: their entropy is 0 whether random or not, "
            "and no threshold tells them apart"
        )
    generator = np.random.default_rng(seed)
    octaves: list[int] = []
    least: list[float] = []
    for octave in range(1, math.ceil(math.log2(elements)) + _OCTAVES + 1):
        found = least_random_entropy(2**octave, elements, draws=draws, repeats=repeats, generator=generator)
        if octaves or found >= math.log10(elements) / 2:
            octaves.append(octave)
            least.append(found)
    height, middle, slope, base = _logistic_fit(np.array(octaves, dtype=float), np.array(least), elements)
    said = f"least of {draws} simulated layers, mean of {repeats}, seed {seed}"
    return RandomThreshold(elements, height, middle, slope, base, 2 ** octaves[0], said)


def _logistic_fit(x_P: Values, y_P: Values, elements: int) -> tuple[float, float, float, float]:
    """L, x0, k, b: L + b is log10 K, L by least squares for given x0 and k, these on grids that narrow.

    There is a flat valley towards an exponential (x0 to −∞, L to ∞), where steps along a gradient get lost.
    """
    largest = math.log10(elements)
    missing_P = largest - y_P
    middles = np.linspace(_LEAST_MIDDLE, math.log2(elements) + 4, 31)
    slopes = np.linspace(0.3, 1.5, 31)
    best = (math.inf, 0.0, 0.0, 0.0)
    for _ in range(25):
        tried = [(*_height(x_P, missing_P, m, s), m, s) for m in middles.tolist() for s in slopes.tolist()]
        best = min([best, *tried])
        middles = _around(best[2], middles).clip(min=_LEAST_MIDDLE)
        slopes = _around(best[3], slopes)
    _, height, middle, slope = best
    return height, middle, slope, largest - height


def _height(x_P: Values, missing_P: Values, middle: float, slope: float) -> tuple[float, float]:
    """The weighted sum of squares that is left, and L."""
    weights_P = missing_P**-0.5
    share_P = weights_P / (1 + np.exp(slope * (x_P - middle)))
    wanted_P = weights_P * missing_P
    height = float(share_P @ wanted_P / (share_P @ share_P))
    left_P = height * share_P - wanted_P
    return float(left_P @ left_P), height


def _around(place: float, grid: Values) -> Values:
    """A grid of half the width about a place."""
    half = (grid[-1] - grid[0]) / 4
    return np.linspace(place - half, place + half, len(grid))
