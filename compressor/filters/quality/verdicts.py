"""Verdicts on layers: sparse, low diversity, random, healthy, from published and own bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from compressor.errors import InputError
from compressor.filters.quality.threshold import RandomThreshold

__all__ = ["Bounds", "Verdict", "is_degenerate", "verdicts"]

_LOG10_9 = math.log10(9)


class Verdict(Enum):
    """What the filters of a layer look like. None of these is a measure of how much the layer matters.

    `SPARSE`: many kernels do nothing. `LOW_DIVERSITY`: the kernels are multiples of few shapes. `RANDOM`:
    they vary as random kernels do. `HEALTHY`: none of these. `UNJUDGED`: not sparse, and too few kernels (or
    such of one element) to tell random from learnt.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331 (the three types of degeneration).*

    >>> [verdict.value for verdict in Verdict]
    ['sparse', 'low diversity', 'random', 'healthy', 'unjudged']
    """

    SPARSE = "sparse"
    LOW_DIVERSITY = "low diversity"
    RANDOM = "random"
    HEALTHY = "healthy"
    UNJUDGED = "unjudged"


@dataclass(frozen=True)
class Bounds:
    """The bounds of verdicts.

    The three numbers are those of the combined rule of CNN Filter DB's supplement (`is_degenerate`):
    a layer is degenerate where H ≥ T_H − 0.02, or H < 0.5 and S ≥ 0.14. To call a layer sparse by the third
    alone, of low diversity by the second alone, and random by the first is ours: the paper names these types
    without bounds, but for random, where it is H > T_H (`random_margin=0`).

    `low_entropy` is for 3×3; for kernels of K elements it counts as the same share of log10 K (ours).

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331, supplement (ablation), after a third party's
    reading.*

    >>> Bounds()
    Bounds(sparse_share=0.14, low_entropy=0.5, random_margin=0.02)
    """

    sparse_share: float = 0.14
    low_entropy: float = 0.5
    random_margin: float = 0.02

    def __post_init__(self) -> None:
        if not (0 < self.sparse_share <= 1 and 0 <= self.low_entropy <= _LOG10_9 and self.random_margin >= 0):
            raise InputError(
                "bounds: expected sparse_share in (0, 1], low_entropy in [0, log10 9 = 0.954] and a "
                f"random_margin of 0 or more, got {self}"
            )

    def low_entropy_of(self, elements: int) -> float:
        """The entropy under which kernels of K elements are of low diversity.

        >>> round(Bounds().low_entropy_of(25), 4)
        0.7325
        """
        return self.low_entropy * math.log10(elements) / _LOG10_9


def verdicts(
    sparsity: float,
    entropy: float,
    n: int,
    threshold: RandomThreshold | None,
    *,
    bounds: Bounds | None = None,
) -> tuple[Verdict, ...]:
    """All that holds of a layer of n kernels with these S and H, the gravest first.

    `threshold` None: there is none for kernels of this size. A layer can be sparse, and the rest of its
    kernels be random.

    >>> from compressor.filters.quality import PUBLISHED_THRESHOLD
    >>> verdicts(0.2, 0.4, 4096, PUBLISHED_THRESHOLD)
    (<Verdict.SPARSE: 'sparse'>, <Verdict.LOW_DIVERSITY: 'low diversity'>)
    >>> verdicts(0.0, 0.8, 4096, PUBLISHED_THRESHOLD), verdicts(0.0, 0.1, 4, PUBLISHED_THRESHOLD)
    ((<Verdict.HEALTHY: 'healthy'>,), (<Verdict.UNJUDGED: 'unjudged'>,))
    """
    bounds = bounds or Bounds()
    found = [Verdict.SPARSE] if sparsity >= bounds.sparse_share else []
    if threshold is None or not threshold.judges(n):
        return tuple(found) or (Verdict.UNJUDGED,)
    if entropy < bounds.low_entropy_of(threshold.elements):
        found.append(Verdict.LOW_DIVERSITY)
    if entropy >= threshold(n) - bounds.random_margin:
        found.append(Verdict.RANDOM)
    return tuple(found) or (Verdict.HEALTHY,)


def is_degenerate(
    sparsity: float,
    entropy: float,
    n: int,
    threshold: RandomThreshold | None,
    *,
    bounds: Bounds | None = None,
) -> bool | None:
    """The combined rule: (H ≥ T_H(n) − 0.02) or (H < 0.5 and S ≥ 0.14); None where n kernels are too few.

    *Source: see `Bounds`.*

    >>> from compressor.filters.quality import PUBLISHED_THRESHOLD
    >>> [is_degenerate(0.0, entropy, 4096, PUBLISHED_THRESHOLD) for entropy in (0.4, 0.94)]
    [False, True]
    """
    if threshold is None or not threshold.judges(n):
        return None
    found = verdicts(sparsity, entropy, n, threshold, bounds=bounds)
    return Verdict.RANDOM in found or {Verdict.SPARSE, Verdict.LOW_DIVERSITY} <= set(found)
