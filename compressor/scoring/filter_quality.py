"""Filter quality: a filter is worth its length, unless its kernels are dead or another points its way."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compressor.core.graph import Axis, Graph, Mask
from compressor.errors import InputError, ScoreError
from compressor.observing.precision import widened
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.filter_terms import (
    distinctness,
    diversity,
    live_shares,
    originality,
    sparse_kernels,
)
from compressor.scoring.norm_folding import contractions, folded_weights
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike, choice, is_positive
from compressor.scoring.weights import (
    WRITERS,
    RolesLike,
    channel_slices,
    layer_scores,
    roles_of,
    weight_axes,
    weights_of,
)

__all__ = ["FilterQuality", "Term", "TermLike", "unread_units"]


class Term(Enum):
    """One factor of `FilterQuality`, a number for each filter of a layer.

    - `LIVE`: the share of its kernels that are not sparse, 0 for a dead filter (a dead row of the layer).
    - `NORM`: its L2 norm.
    - `FOLDED_NORM`: the same with the batch norm folded in. It favours filters whose inputs are weak, as the
      norm behind them makes up for that.
    - `DISTINCT`: 1 − the largest |cos| to another filter. Two filters that point the same way both get 0.
    - `ORIGINAL`: the same against longer filters only, so that the longer of the two stays.
    - `DIVERSE`: the variance entropy of its own kernels, as a share of the largest possible.
    - `READ`: 0 where every layer that reads the channel does so through sparse kernels alone (a dead
      column of the layer behind), else 1.

    >>> Term("live")
    'live'
    """

    LIVE = "live"
    NORM = "norm"
    FOLDED_NORM = "folded norm"
    DISTINCT = "distinct"
    ORIGINAL = "original"
    DIVERSE = "diverse"
    READ = "read"

    def __repr__(self) -> str:
        return repr(self.value)


TermLike = Term | Literal["live", "norm", "folded norm", "distinct", "original", "diverse", "read"]
_DEFAULT = (Term.LIVE, Term.NORM, Term.ORIGINAL, Term.READ)
# What is said of weights as they are, and of weights as the network applies them.
_OF_WEIGHTS = (Term.NORM, Term.DISTINCT, Term.ORIGINAL, Term.DIVERSE)
_OF_APPLIED = (Term.LIVE, Term.FOLDED_NORM)


@dataclass(frozen=True, repr=False)
class FilterQuality(Scorer):
    """Scores a filter by the product of its `terms`: by default live share · norm · (1 − max |cos|), if read.

    The cosine is that to longer filters (`original`): by the largest to any other (`distinct`) two filters
    that look alike would both go.

    Kernels are slices of one output and one input channel (single numbers of a matrix), sparse where all
    their weights lie below `epsilon` of the layer's largest. For that, batch norms are folded into the
    weights in front of them where it is exact (`fold_batch_norm`), so that a channel that a norm silences is
    dead. Filters are compared within the group of a grouped convolution, as only those read the same
    channels. A head of attention is one filter among the heads of its weight, and so are the dims of heads.
    Raises ScoreError for weights that are not finite.

    `cp.prune(model, x, scorer=FilterQuality(terms=("live", "read")), budget=cp.budget.Threshold(0))` removes
    dead filters and unread ones, and nothing else; the constants that dead filters may emit go with them.

    The terms come from statistics of many networks, where they go along with how well a network does; none
    of that says that a filter with a low one can go. What they are worth for pruning is measured in
    benchmarks/results/filter_quality.md.

    *Source: dead kernels, sparsity (ε = 0.01) and variance entropy: P. Gavrikov, J. Keuper, 2022,
    arXiv 2203.15331; cosines between whole filters: their study of robust models, CVPR workshops 2022.* There
    all are properties of layers; the product for a filter is the library's own.

    >>> FilterQuality()
    FilterQuality()
    >>> FilterQuality(terms=("live", "read"), epsilon=0.02)
    FilterQuality(terms=('live', 'read'), epsilon=0.02)
    """

    _: KW_ONLY
    terms: TermLike | Collection[TermLike] = _DEFAULT
    epsilon: float = 0.01
    fold_batch_norm: bool = True
    roles: RolesLike = WRITERS
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.MEAN

    def __post_init__(self) -> None:
        given = (self.terms,) if isinstance(self.terms, str | Term) else tuple(self.terms)
        chosen = {choice(Term, term, "a term of FilterQuality") for term in given}
        if not chosen:
            raise InputError("FilterQuality: terms is empty, expected one at least, such as ('live', 'norm')")
        if not (is_positive(self.epsilon) and self.epsilon < 1):
            raise InputError(
                "FilterQuality: epsilon must lie between 0 and 1 (0.01 for 1 % of the layer's largest "
                f"weight), got {self.epsilon!r}"
            )
        object.__setattr__(self, "terms", tuple(term for term in Term if term in chosen))
        object.__setattr__(self, "roles", roles_of(self.roles))
        super().__post_init__()

    def site_scores(self, graph: Graph) -> SiteScores:
        """The product of the terms for every channel of each weight with one of the roles."""
        raw = weights_of(graph)
        weights = folded_weights(graph) if self.fold_batch_norm else raw
        groups = {use.weight: use.groups for use in contractions(graph.tape)}
        axes = weight_axes(graph, self.roles)
        readers = _reading(graph, weights) if Term.READ in self._terms else []
        for name in dict.fromkeys(axis.tensor for axis in (*axes, *readers)):
            _check_finite(self, name, weights[name])
        read = np.ones(graph.n_units + 1)  # so that PINNED (-1) reads 1
        if readers:
            read[:-1][unread_units(graph, weights, epsilon=self.epsilon)] = 0
        found = {}
        for axis in axes:
            scores = self._of_layer(graph, axis, raw[axis.tensor], _OF_WEIGHTS, _groups(axis, groups))
            scores = scores * self._of_layer(graph, axis, weights[axis.tensor], _OF_APPLIED, 1)
            found[axis.tensor, axis.axis] = scores * torch.from_numpy(read[axis.units]).to(scores)
        return found

    @property
    def _terms(self) -> tuple[Term, ...]:
        assert isinstance(self.terms, tuple)
        return self.terms

    def _of_layer(
        self, graph: Graph, axis: Axis, weight: Tensor, terms: Collection[Term], groups: int
    ) -> Tensor:
        """The product of those of the `terms` that were chosen, for every channel of the axis."""
        elements = _kernel_elements(weight, axis)

        def measure(filters_NF: Tensor) -> Tensor:
            kernels_NIK = filters_NF.reshape(len(filters_NF), -1, elements)
            product = widened(filters_NF.new_ones(len(filters_NF)))
            for term in self._terms:
                if term in terms:
                    product = product * _term(term, kernels_NIK, groups, self.epsilon)
            return product

        return layer_scores(graph, axis, channel_slices(weight, axis), measure)


def unread_units(graph: Graph, weights: Mapping[str, Tensor], *, epsilon: float = 0.01) -> Mask:
    """Which units [n_units] nothing reads but sparse kernels: dead columns of every layer that reads them.

    A unit that no filter or matrix reads is not among them: what reads it is not known. `weights` are those
    of `folded_weights` or `weights_of`.
    """
    read = np.zeros(graph.n_units + 1, dtype=bool)
    has_reader = np.zeros(graph.n_units + 1, dtype=bool)
    for axis in _reading(graph, weights):
        weight = weights[axis.tensor]
        slices = channel_slices(weight, axis)
        kernels_NIK = slices.reshape(len(slices), -1, _kernel_elements(weight, axis))
        live = ~sparse_kernels(kernels_NIK, epsilon=epsilon).all(dim=1).cpu().numpy()
        has_reader[axis.units] = True
        read[axis.units[..., live]] = True
    return (has_reader & ~read)[:-1]


def _reading(graph: Graph, weights: Mapping[str, Tensor]) -> list[Axis]:
    """The axes of filters and matrices that read channels which can be removed."""
    return [a for a in graph.axes if a.role == "reader" and weights[a.tensor].ndim > 1 and a.free.any()]


def _term(term: Term, kernels_NIK: Tensor, groups: int, epsilon: float) -> Tensor:
    filters_NF = kernels_NIK.flatten(1)
    if term is Term.LIVE:
        return live_shares(kernels_NIK, epsilon=epsilon)
    if term in (Term.NORM, Term.FOLDED_NORM):
        lengths: Tensor = torch.linalg.vector_norm(widened(filters_NF), dim=1)
        return lengths
    if term is Term.DIVERSE:
        return diversity(kernels_NIK)
    compare = distinctness if term is Term.DISTINCT else originality
    return torch.cat([compare(part) for part in filters_NF.chunk(groups)])


def _kernel_elements(weight: Tensor, axis: Axis) -> int:
    """K of the kernels that a channel's slice consists of; along the extent of a kernel, single numbers."""
    return math.prod(weight.shape[2:]) if axis.axis < 2 else 1


def _groups(axis: Axis, groups: Mapping[str, int]) -> int:
    """Of how many groups of equally many filters the layer is; heads are compared across them."""
    return groups.get(axis.tensor, 1) if axis.units.ndim == 1 and axis.axis < 2 else 1


def _check_finite(scorer: FilterQuality, name: str, weight: Tensor) -> None:
    bad = int((~torch.isfinite(weight)).sum())
    if bad:
        raise ScoreError(
            f"{scorer!r}: {name!r} holds {bad} of {weight.numel()} weights that are NaN or infinite (with "
            "its batch norm, if one is folded in), expected finite ones; look at the training that made them"
        )
