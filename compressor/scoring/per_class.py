"""Any scorer class by class, so that frequent classes do not decide what rare ones need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from compressor.core.graph import Graph
from compressor.errors import InputError
from compressor.observing.batches import Batch, device_of, loaded
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.units import Normalize, NormalizeLike, Values, choice
from compressor.scoring.weights import BOTH, spread, weight_axes

__all__ = ["Combine", "PerClass"]


class Combine(Enum):
    """How the scores for the classes become one: their (weighted) mean, or the largest of them.

    >>> Combine("mean")
    'mean'
    """

    MEAN = "mean"
    MAX = "max"

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, repr=False, eq=False)
class PerClass(Scorer):
    """Scores every unit for each class by itself, on batches of that class only, and combines.

    `scorer_of(batches)` makes the scorer: `lambda batches: Taylor(batches, cross_entropy)`, or `HRank`.
    With `combine` "mean" every class counts the same however often it occurs, or as `weights` say (one
    number for each class); with "max" a unit is worth what it is to the class that needs it most. Where
    the scorer measures a loss, "mean" is the balanced risk and "max" the worst class.

    Targets of `batches` are class numbers [N] from 0 to `classes` - 1, inputs have the samples along their
    first axis. Each class gets batches of `batch_size` samples (the last one may be smaller), gathered
    over the whole of `batches`, which is read once for every class: no sample is kept. Raises InputError
    for labels out of range, a class without a sample (of several processes: in each), and batches that
    can be run through only once.

    *Source: the library's own; scores averaged over classes are those of a class-balanced sampler without
    its noise.*

    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    >>> data, loss = [(torch.randn(8, 2), torch.arange(8) // 7)], torch.nn.functional.cross_entropy
    >>> rare = PerClass(lambda batches: cp.scoring.Taylor(batches, loss), data, 2, combine="max")
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), rare)
    Scores(PerClass(classes=2, combine='max') of Sequential: 3 units in 1 group, ...)
    """

    scorer_of: Callable[[Iterable[object]], Scorer] = field(repr=False)
    batches: Iterable[object] = field(repr=False)
    classes: int
    _: KW_ONLY
    combine: Combine | Literal["mean", "max"] = Combine.MEAN
    weights: Sequence[float] | None = None
    batch_size: int = 64
    normalize: NormalizeLike = Normalize.NONE

    def __post_init__(self) -> None:
        for name in ("classes", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"PerClass: {name} must be a number of at least 1, got {value!r}")
        if isinstance(self.batches, Iterator):
            raise InputError(
                f"PerClass: a {type(self.batches).__name__} can be run through only once, expected batches "
                "that can be read once for every class: a list or a DataLoader"
            )
        object.__setattr__(self, "combine", choice(Combine, self.combine, "combine"))
        self._check_weights()
        super().__post_init__()

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        weights = np.asarray(self.weights, dtype=np.float64)
        if weights.shape != (self.classes,) or not (weights >= 0).all() or not weights.sum() > 0:
            raise InputError(
                f"PerClass: weights must be {self.classes} numbers of at least 0 that are not all 0, one for "
                f"each class, got {self.weights!r}"
            )
        if self.combine is Combine.MAX:
            raise InputError("PerClass: weights are for combine='mean'; the largest score needs none")

    def site_scores(self, graph: Graph) -> SiteScores:
        """For each slice the score of its unit."""
        return spread(self.raw_unit_scores(graph), weight_axes(graph, BOTH))

    def raw_unit_scores(self, graph: Graph) -> Values:
        """The combined scores [n_units]."""
        scores = self.scores_of_classes(graph)
        if self.combine is Combine.MAX:
            largest: Values = np.amax(scores, axis=0)
            return largest
        shares = np.ones(self.classes) if self.weights is None else np.asarray(self.weights)
        return np.average(scores, axis=0, weights=shares)

    def unit_scores(self, graph: Graph) -> Values:
        """The same, on the scale that `normalize` says; the scorer's own has its say before."""
        return self.comparable(self.raw_unit_scores(graph), graph)

    def scores_of_classes(self, graph: Graph) -> Values:
        """The scores for each class [classes, n_units]: what a plan takes from whom."""
        rows, device = [], device_of(graph.model)
        for number in range(self.classes):
            own = _OfClass(self.batches, number, self.classes, self.batch_size, device)
            scorer = self.scorer_of(own)
            if not isinstance(scorer, Scorer):
                raise InputError(
                    f"PerClass: scorer_of must return a Scorer, got {type(scorer).__name__}: write "
                    "lambda batches: Taylor(batches, loss)"
                )
            rows.append(scorer.unit_scores(graph))
        return np.stack(rows)


@dataclass(frozen=True)
class _OfClass:
    """The samples of one class of `source`, in batches of one size."""

    source: Iterable[object]
    number: int
    classes: int
    size: int
    device: torch.device

    def __iter__(self) -> Iterator[object]:
        waiting: list[tuple[list[Tensor], object]] = []
        seen = total = 0
        for position, batch in enumerate(loaded(self.source, self.device)):
            labels = self._labels(batch, position)
            rows = torch.nonzero(labels == self.number).flatten()
            seen, total = seen + len(rows), total + len(labels)
            if len(rows):
                waiting.append(_rows(batch, rows, len(labels), position))
            while sum(len(leaves[-1]) for leaves, _ in waiting) >= self.size:
                ready, left = _joined(waiting, self.size)
                waiting = [left] if len(left[0][-1]) else []
                yield ready
        if not seen:
            raise InputError(
                f"PerClass: class {self.number} has no sample among {total}, expected some of each of the "
                f"{self.classes} classes; give more batches, or number the classes that there are"
            )
        if waiting:
            yield _joined(waiting, self.size)[0]

    def _labels(self, batch: Batch, position: int) -> Tensor:
        labels = batch.target
        if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point():
            got = (
                f"{labels.dtype} of shape {list(labels.shape)}"
                if isinstance(labels, Tensor)
                else type(labels).__name__
            )
            raise InputError(
                f"PerClass: the target of batch {position} must be a tensor of class numbers [N], got {got}; "
                "let batches give (inputs, class numbers)"
            )
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if len(wrong):
            raise InputError(
                f"PerClass: batch {position} has the label {int(wrong[0])} ({len(wrong)} of {len(labels)} "
                f"are out of range), expected 0 to {self.classes - 1}"
            )
        return labels


def _rows(batch: Batch, rows: Tensor, count: int, position: int) -> tuple[list[Tensor], object]:
    """Some samples of a batch: its tensors, the target last, and how they hang together."""
    inputs = dict(batch.kwargs) if batch.kwargs else batch.args
    leaves, shape = tree_flatten((inputs, batch.target))
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or leaf.dim() == 0 or len(leaf) != count:
            got = f"shape {list(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__
            raise InputError(
                f"PerClass: batch {position} has {count} labels and an input of {got}, expected tensors with "
                "the samples along their first axis"
            )
    return [leaf[rows] for leaf in leaves], shape


def _joined(
    parts: Sequence[tuple[list[Tensor], Any]], size: int
) -> tuple[object, tuple[list[Tensor], object]]:
    """A batch of the first `size` samples of some parts, and what is left of them."""
    shape = parts[0][1]
    whole = [torch.cat(leaves) for leaves in zip(*(leaves for leaves, _ in parts), strict=True)]
    inputs, target = tree_unflatten([leaf[:size] for leaf in whole], shape)
    item = (inputs, target) if isinstance(inputs, dict) else (*inputs, target)
    return item, ([leaf[size:] for leaf in whole], shape)
