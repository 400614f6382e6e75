"""Scores of several scorers as one: their weighted mean, or their weighted product."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np

from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.units import Normalize, NormalizeLike, Values, is_positive
from compressor.scoring.weights import BOTH, spread, weight_axes

__all__ = ["Mixed", "MixedScorer", "Product"]


@dataclass(frozen=True, repr=False, eq=False)
class MixedScorer(Scorer):
    """What `Mixed` and `Product` share: scorers, and how much each counts.

    Any scorers do, also those that read data: each runs as it does alone, with its own passes over its
    batches, which must last for as many. Their scores, comparable between groups as each scorer makes them,
    are divided by their mean size over all units of the model: so weights say how much a scorer counts
    whatever its unit is, and it still shows which layers it thinks little of. `normalize` is of the result.
    """

    scorers: Mapping[Scorer, float]
    _: KW_ONLY
    normalize: NormalizeLike = Normalize.NONE

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.scorers, Mapping) or not self.scorers:
            raise InputError(
                f"{name} takes a mapping from scorers to their weights, one at least, such as "
                f"{name}({{FilterQuality(): 1, Norm(): 2}}), got {self.scorers!r}"
            )
        for scorer, weight in self.scorers.items():
            if not isinstance(scorer, Scorer):
                raise InputError(
                    f"{name}: expected scorers such as Norm(), got {scorer!r}; of a function "
                    "WeightFunction(function) makes one"
                )
            if not is_positive(weight):
                raise InputError(
                    f"{name}: the weight of {scorer!r} is a finite number above 0, got {weight!r}"
                )
        object.__setattr__(self, "scorers", dict(self.scorers))
        super().__post_init__()

    @abstractmethod
    def combine(self, parts: Sequence[Values], weights: Sequence[float]) -> Values:
        """One score [n_units] of those of each scorer [n_units], which are of mean size 1."""

    def site_scores(self, graph: Graph) -> SiteScores:
        """For each slice the score of its unit."""
        return spread(self.raw_unit_scores(graph), weight_axes(graph, BOTH))

    def raw_unit_scores(self, graph: Graph) -> Values:
        """The combined scores [n_units]."""
        parts = [self._scaled(scorer, scorer.unit_scores(graph)) for scorer in self.scorers]
        return self.combine(parts, list(self.scorers.values()))

    def unit_scores(self, graph: Graph) -> Values:
        """The same, on the scale that `normalize` says; each scorer's own has its say before."""
        return self.comparable(self.raw_unit_scores(graph), graph)

    def _scaled(self, scorer: Scorer, values: Values) -> Values:
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ScoreError(
                f"{type(self).__name__}: {scorer!r} gives {bad} of {len(values)} units a score that is not "
                "finite; look for NaN in the weights or the batches"
            )
        # Divided first, a sum of large scores cannot overflow.
        size = float(np.sum(np.abs(values) / max(len(values), 1)))
        return values / size if size > 0 else values


@dataclass(frozen=True, repr=False, eq=False)
class Mixed(MixedScorer):
    """Scores a unit by the weighted mean of what several scorers say; see `MixedScorer`.

    *Source: the library's own.*

    >>> from compressor.scoring import FilterQuality, Norm
    >>> Mixed({FilterQuality(): 1, Norm(power=2): 3})
    Mixed(scorers={FilterQuality(): 1, Norm(p=2, power=2): 3})
    """

    def combine(self, parts: Sequence[Values], weights: Sequence[float]) -> Values:
        """Σ w s / Σ w."""
        return np.average(np.stack(parts), axis=0, weights=weights)


@dataclass(frozen=True, repr=False, eq=False)
class Product(MixedScorer):
    """Scores a unit by the product Π s^w of what several scorers say; see `MixedScorer`.

    A zero of one scorer is a zero: with `FilterQuality(terms=("live", "read"), normalize="none")` in it, dead
    filters go before all others (divided by their mean, the live ones of groups with dead ones would gain).
    Raises ScoreError for negative scores.

    Weights are powers: where layers compete, they say how far a scorer sets these apart.

    *Source: the library's own.*

    >>> from compressor.scoring import FilterQuality, Norm
    >>> Product({FilterQuality(terms=("live", "read"), normalize="none"): 1, Norm(): 1})
    Product(scorers={FilterQuality(terms=('live', 'read'), normalize='none'): 1, Norm(p=2): 1})
    """

    def combine(self, parts: Sequence[Values], weights: Sequence[float]) -> Values:
        """Π s^w."""
        for scorer, values in zip(self.scorers, parts, strict=True):
            if (values < 0).any():
                raise ScoreError(
                    f"Product: {scorer!r} gives {int((values < 0).sum())} of {len(values)} units a negative "
                    "score, expected numbers of at least 0; mix it with Mixed, or give it normalize='rank'"
                )
        powers = [values**weight for values, weight in zip(parts, weights, strict=True)]
        product: Values = np.prod(np.stack(powers), axis=0)
        return product
