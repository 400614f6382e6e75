"""Random scores: the baseline that every criterion has to beat."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np

from compressor.core.graph import Graph
from compressor.errors import InputError
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike, Values
from compressor.scoring.weights import spread

__all__ = ["Random"]


@dataclass(frozen=True, repr=False)
class Random(Scorer):
    """Scores every unit by a uniform random number in [0, 1); the same `seed`, the same scores.

    A unit draws one number, however many sites it has: a mean over many draws would hold units with
    many sites in the middle of the order.

    *Source: as a baseline, D. Mittal, S. Bhardwaj, M. M. Khapra, B. Ravindran, 2018, arXiv
    1801.10447.*

    >>> Random(7)
    Random(seed=7)
    """

    seed: int = 0
    _: KW_ONLY
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.NONE

    def __post_init__(self) -> None:
        try:
            np.random.default_rng(self.seed)
        except (TypeError, ValueError):
            raise InputError(f"a seed is an integer from 0 on, got {self.seed!r}") from None
        super().__post_init__()

    def site_scores(self, graph: Graph) -> SiteScores:
        """The unit's number at each of its sites, 0 at pinned ones."""
        return spread(self.raw_unit_scores(graph), graph.axes)

    def raw_unit_scores(self, graph: Graph) -> Values:
        """One number for each unit [n_units]."""
        return np.random.default_rng(self.seed).random(graph.n_units)
