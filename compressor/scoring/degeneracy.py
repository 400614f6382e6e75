"""How degenerate the layers of a model are: sparse kernels, few shapes, random kernels, dead filters."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from compressor.core.graph import Axis, Graph, Mask, require_graph
from compressor.errors import InputError, ScoreError
from compressor.filters.bank import kernel_matrix, require_finite
from compressor.filters.quality import (
    Verdict,
    entropy_of_kernels,
    entropy_ratio,
    sparse_kernels,
    threshold_for,
    verdicts,
)
from compressor.scoring.filter_quality import unread_units
from compressor.scoring.filter_terms import live_shares
from compressor.scoring.norm_folding import Contraction, contractions, folded_weights
from compressor.scoring.weights import channel_slices, weights_of

__all__ = ["Degeneracies", "GroupDegeneracy", "degeneracies"]

_log = logging.getLogger(__name__)
_NOTHING_SAID = (Verdict.HEALTHY, Verdict.UNJUDGED)


@dataclass(frozen=True)
class GroupDegeneracy:
    """How degenerate the layers are that write the channels of one group.

    `sparsity` is S, the share of their kernels that are sparse (of matrices and 1x1 convolutions, whose
    kernels are single numbers: of their filters), `entropy_ratio` H / T_H, what their kernels
    vary beside random ones (None where kernels have one element or are too few to judge), both as means over
    kernels. `share` is 1 − (1 − S) · min(1, H / T_H): 0 for a layer whose kernels are all live and as diverse
    as random ones, 1 for one without any or of a single shape. `dead` counts the units that carry a constant
    at most: dead filters, and those that nobody reads.
    """

    group: str
    layers: tuple[str, ...]
    sparsity: float
    entropy_ratio: float | None
    share: float
    dead: int
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Degeneracies:
    """Those of all groups of a graph, in its order, and which units [n_units] are dead; `str` is a table."""

    groups: tuple[GroupDegeneracy, ...]
    dead: Mask
    random: tuple[str, ...]
    """The layers whose kernels are as diverse as random ones: hardly trained, it seems.

    By their `share` they are healthy. Whether to train on, reset or drop the block is for the user.
    """

    def __repr__(self) -> str:
        return f"Degeneracies({len(self.groups)} groups, {int(self.dead.sum())} dead units)"

    def __str__(self) -> str:
        width = max([len("group"), *(len(own.group) for own in self.groups)])
        lines = [f"{'group':<{width}}  sparse  H / T_H  share  dead  verdicts"]
        for own in self.groups:
            ratio = "-" if own.entropy_ratio is None else f"{own.entropy_ratio:.3f}"
            words = ", ".join(verdict.value for verdict in own.verdicts)
            numbers = f"{own.sparsity:>6.3f}  {ratio:>7}  {own.share:>5.3f}  {own.dead:>4}"
            lines.append(f"{own.group:<{width}}  {numbers}  {words}")
        return "\n".join(lines)


def degeneracies(graph: Graph, *, epsilon: float = 0.01, fold_batch_norm: bool = True) -> Degeneracies:
    """How degenerate the convolutions and matrices are that write each group of the graph.

    Kernels are sparse where all their weights lie below `epsilon` of the layer's largest; batch norms are
    folded in where that is exact. A group without a layer to judge (1x1 convolutions, matrices, few kernels)
    counts as diverse as all others are on average. Raises ScoreError for weights that are not finite.

    *Source: S, H and T_H: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331.* The share made of them is ours.
    There they go along with how well whole networks do; that a degenerate layer can lose more channels than
    another is a guess, which benchmarks/results/filter_quality.md measures.

    >>> import torch, compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 4, 3))
    >>> found = degeneracies(cp.capture(net, torch.ones(1, 8, 8, 8)))
    >>> found.random
    ('0.weight', '2.weight')
    """
    require_graph("degeneracies", graph)
    weights = folded_weights(graph) if fold_batch_norm else weights_of(graph)
    layers = {use.weight: _layer(use, weights[use.weight], epsilon) for use in contractions(graph.tape)}
    axes = {(use.weight, use.out_axis) for use in contractions(graph.tape)}
    writers = [axis for axis in graph.axes if (axis.tensor, axis.axis) in axes and axis.free.any()]
    dead = _dead_units(graph, writers, weights, epsilon)
    written: dict[int, list[_Layer]] = {}
    for axis in writers:
        for group in np.unique(graph.group_of[axis.sites()[1]]).tolist():
            written.setdefault(group, []).append(layers[axis.tensor])
    usual = _usual_diversity([layer for own in written.values() for layer in own])
    random = tuple(name for name, layer in layers.items() if Verdict.RANDOM in layer.verdicts)
    groups = tuple(
        _group(group.name, written.get(position, []), usual, int(dead[np.concatenate(group.cells)].sum()))
        for position, group in enumerate(graph.groups)
    )
    if random:
        _log.info("layers of kernels as diverse as random ones: %s", ", ".join(random))
    return Degeneracies(groups, dead, random)


@dataclass(frozen=True)
class _Layer:
    """What is measured of one weight."""

    name: str
    kernels: int
    sparsity: float
    entropy_ratio: float | None
    verdicts: tuple[Verdict, ...]


def _layer(use: Contraction, weight: Tensor, epsilon: float) -> _Layer:
    _check_finite(use.weight, weight)
    # A matrix is a layer of kernels of one element; which of its axes is which makes no difference here.
    kernels_NK = kernel_matrix(weight if weight.ndim > 2 else weight.unsqueeze(-1))
    count = len(kernels_NK)
    # Of single numbers some are always small beside the largest: there the whole filter has to be.
    filters_NK = weight.movedim(use.out_axis, 0).flatten(1)
    sparse = sparse_kernels(kernels_NK if kernels_NK.shape[1] > 1 else filters_NK, epsilon=epsilon)
    sparsity = float(sparse.double().mean())
    entropy = entropy_of_kernels(kernels_NK)
    threshold = threshold_for(tuple(weight.shape[2:]) or (1,))
    judged = threshold is not None and threshold.judges(count)
    ratio = entropy_ratio(entropy, count, threshold) if judged and threshold is not None else None
    return _Layer(use.weight, count, sparsity, ratio, verdicts(sparsity, entropy, count, threshold))


def _group(name: str, layers: Sequence[_Layer], usual: float, dead: int) -> GroupDegeneracy:
    sparsity = _mean([(layer.kernels, layer.sparsity) for layer in layers])
    judged = [(layer.kernels, layer.entropy_ratio) for layer in layers if layer.entropy_ratio is not None]
    diversity = _mean([(kernels, min(1.0, ratio)) for kernels, ratio in judged]) if judged else usual
    words = dict.fromkeys(verdict for layer in layers for verdict in layer.verdicts)
    several = [verdict for verdict in words if len(words) == 1 or verdict not in _NOTHING_SAID]
    names = tuple(dict.fromkeys(layer.name for layer in layers))
    ratio = _mean(judged) if judged else None
    share = 1 - (1 - sparsity) * diversity
    return GroupDegeneracy(name, names, sparsity, ratio, share, dead, tuple(several))


def _usual_diversity(layers: Sequence[_Layer]) -> float:
    """The mean of min(1, H / T_H) over the kernels of layers that have one; 1 where none has."""
    judged = [
        (layer.kernels, min(1.0, layer.entropy_ratio)) for layer in layers if layer.entropy_ratio is not None
    ]
    return _mean(judged) if judged else 1.0


def _mean(weighted: Sequence[tuple[int, float]]) -> float:
    """The mean of values by how many kernels each stands for; 0 of none."""
    count = sum(kernels for kernels, _ in weighted)
    return sum(kernels * value for kernels, value in weighted) / max(count, 1)


def _dead_units(graph: Graph, writers: Sequence[Axis], weights: Mapping[str, Tensor], epsilon: float) -> Mask:
    """Which units [n_units] have a dead filter in every layer that writes them, or are read by none."""
    live, known = (np.zeros(graph.n_units + 1, dtype=bool) for _ in range(2))
    for axis in writers:
        weight = weights[axis.tensor]
        elements = math.prod(weight.shape[2:]) if axis.axis < 2 else 1
        slices = channel_slices(weight, axis)
        is_live = (live_shares(slices.reshape(len(slices), -1, elements), epsilon=epsilon) > 0).cpu().numpy()
        known[axis.units] = True
        live[axis.units[..., is_live]] = True
    dead: Mask = (known & ~live)[:-1] | unread_units(graph, weights, epsilon=epsilon)
    return dead


def _check_finite(name: str, weight: Tensor) -> None:
    try:
        require_finite(weight, repr(name))
    except InputError as error:
        raise ScoreError(f"degeneracies: {error}") from error
