"""The random thresholds known: the published one of 3×3 kernels, ours of other sizes."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache

from compressor.errors import InputError
from compressor.filters.kernel_sizes import size_words
from compressor.filters.quality.threshold import RandomThreshold
from compressor.filters.quality.threshold_fit import fit_random_threshold

__all__ = ["PUBLISHED_THRESHOLD", "random_threshold", "threshold_for"]

PUBLISHED_THRESHOLD = RandomThreshold(
    9, 1.2618047, 2.30436435, 0.88767525, -0.31050834, 8, "as published, the least of random layers"
)

# By the number of elements K: L, x0, k, b, the least n, and the `repeats` of the fit: each line is
# fit_random_threshold(K, repeats=repeats).
_FITTED: dict[int, tuple[float, float, float, float, int, int]] = {
    2: (0.647678063172, 2.35444908738, 0.694818277359, -0.346648067508, 32, 20),
    3: (9.44622063853, -1.71793412789, 0.683918058872, -8.96909938381, 16, 20),
    4: (9.48352512953, -1.6999998649, 0.686240646839, -8.8814651382, 16, 20),
    5: (2.41726955705, 0.43647011628, 0.691371917725, -1.71829955272, 16, 20),
    7: (2.50921019175, 0.617281288389, 0.70485779047, -1.66411215174, 8, 20),
    9: (6.91896481654, -0.912271043993, 0.686655344963, -5.9647223071, 8, 20),
    11: (4.11359970067, 0.081037523688, 0.694236547947, -3.07220701551, 8, 20),
    15: (2.87942380378, 0.928400243352, 0.704344584942, -1.70333254472, 8, 20),
    16: (2.83254373232, 1.01425685485, 0.703864042759, -1.62842374966, 8, 20),
    25: (2.04509680881, 2.05556304359, 0.719980456829, -0.647156800139, 8, 20),
    27: (1.99763571211, 2.17755017697, 0.72065975666, -0.566271947947, 8, 20),
    49: (1.99861158477, 2.88066496717, 0.720049061775, -0.308415504737, 16, 5),
    81: (1.60897452918, 3.97415369684, 0.741051232815, 0.299510489694, 16, 1),
    121: (1.61267368367, 4.49209848591, 0.738371751308, 0.470111686644, 16, 1),
    125: (1.61406922446, 4.54120627575, 0.739267640114, 0.482840788552, 16, 1),
}

_FITTED_ON_DEMAND = 64  # elements; seconds, once a process


def random_threshold(n: int, kernel_size: Sequence[int] = (3, 3)) -> float:
    """T_H(n) of n kernels of a size, of any number of dimensions; see `RandomThreshold` and `threshold_for`.

    Raises InputError where no threshold is known.

    >>> round(random_threshold(64), 4), round(random_threshold(64, (5, 5)), 2)
    (0.9056, 1.29)
    """
    threshold = threshold_for(kernel_size)
    if threshold is None:
        elements = math.prod(kernel_size)
        raise InputError(
            f"no random threshold is known for kernels of {size_words(kernel_size)}: "
            + (
                f"fit_random_threshold({elements}, draws=100, repeats=1) makes one in minutes"
                if elements > 1
                else "kernels of one element have an entropy of 0, random or not"
            )
        )
    return threshold(n)


def threshold_for(kernel_size: Sequence[int], *, published: bool = True) -> RandomThreshold | None:
    """The random threshold of kernels of a size; it depends on the number K of their elements alone.

    For K = 9 the published constants, or with `published=False` our fit, which is closer to random layers
    from n = 64 on. For other usual sizes constants that `fit_random_threshold` made; up to K = 64 it makes
    what is missing, once, in seconds. None for K = 1 and for larger K.

    >>> threshold_for((3, 3)) is PUBLISHED_THRESHOLD, threshold_for((1, 1)) is None
    (True, True)
    >>> threshold_for((5, 5)) == threshold_for((25,))
    True
    """
    if not all(size >= 1 for size in kernel_size):
        raise InputError(f"a kernel size is one or more sizes of 1 and more, got {tuple(kernel_size)}")
    elements = math.prod(kernel_size)
    if published and elements == PUBLISHED_THRESHOLD.elements:
        return PUBLISHED_THRESHOLD
    return _of_elements(elements)


@lru_cache
def _of_elements(elements: int) -> RandomThreshold | None:
    if elements in _FITTED:
        height, middle, slope, base, least, repeats = _FITTED[elements]
        said = f"least of 1000 simulated layers, mean of {repeats}, seed 0"
        return RandomThreshold(elements, height, middle, slope, base, least, said)
    if not 2 <= elements <= _FITTED_ON_DEMAND:
        return None
    logging.getLogger(__name__).info("fitting the random threshold of kernels of %d elements", elements)
    return fit_random_threshold(elements, repeats=1)
