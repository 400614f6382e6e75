"""Beta-Rank: how much a filter makes of the variation that it reads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Literal

import torch
from torch import Tensor

from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.observing import Batch, run_batches
from compressor.observing.batches import check_max_batches
from compressor.observing.moments import Moments, balanced_moments
from compressor.observing.precision import widened
from compressor.scoring.base import AxisKey, Scorer, SiteScores
from compressor.scoring.beta import Direction, DirectionLike, betas, of_mean_1, stretched
from compressor.scoring.class_labels import class_labels
from compressor.scoring.layer_moments import (
    ClassMoments,
    LayerMoments,
    MomentsRecorder,
    merged_over_processes,
)
from compressor.scoring.otherwise import check_otherwise, filled
from compressor.scoring.receptive_fields import field_moments, published_moments
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike, Values, choice

__all__ = ["BetaRank", "Positions"]

_log = logging.getLogger(__name__)


class Positions(Enum):
    """What is made of the positions of a feature map.

    `MEAN` takes σ over samples at each position, then the mean of the ratios. `POOL` takes σ over samples
    and positions together: it allows inputs of any size, and keeps two numbers for each channel.

    >>> Positions("mean")
    'mean'
    """

    MEAN = "mean"
    POOL = "pool"

    def __repr__(self) -> str:
        return repr(self.value)


PositionsLike = Positions | Literal["mean", "pool"]


@dataclass(frozen=True, repr=False, eq=False)
class BetaRank(Scorer):
    """Scores a filter by mean |W| · mean_p(σ_out / σ_in): its size times how much it spreads its input.

    At each position p, σ_out is the spread over samples of what the filter writes (before norm and
    activation), and σ_in that of what it reads: over samples, the channels of its group and the places of
    its kernel, zero padding included. All convolutions and matrices that write channels are measured in
    one pass, in eval mode; batches may come in any order. The scale of a layer's ratios is arbitrary, so
    each layer's scores are divided by their mean, the score of a unit is the mean over the layers that
    write it (a depthwise filter counts with the filter it follows), and `normalize` is "mean". A group with
    channels that no such layer writes is scored by `otherwise`; without one it raises ScoreError.

    With `balanced` every class has the same weight, however many samples it has: labels are the targets
    of the batches, integers from 0 on. With `n_classes` each of so many classes must have a sample.
    `published` reproduces the code's arithmetic for 2-d convolutions: its slices (see
    `published_moments`), the sum over positions, each layer's scores stretched to [0, 1]. Give it the one
    batch that the code sees.

    `batches` is read as `Taylor` says. Samples are along the first dimension of what layers read; with
    positions="pool" it makes no difference which is. The model is left as it was. Raises InputError
    where there is no batch, ScoreError for one sample or all alike, activations that are not finite, labels
    out of range, a class without samples.

    *Source: M. Homayounfar, M. Koohi-Moghadam, R. Rawassizadeh, V. Vardhanabhuti, 2023, arXiv
    2304.07461.* Departures, but for `published`: σ_in is that of the receptive field, which the code misses
    by slicing the wrong axes; the mean over positions, not the sum; many batches, the same for all layers,
    not a random one for each; positions at which the divisor does not vary count 0, where the code is
    infinite and then orders filters at random.

    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), BetaRank([torch.randn(64, 2)]))
    Scores(BetaRank() of Sequential: 3 units in 1 group, ...)
    """

    batches: Iterable[object] = field(repr=False)
    _: KW_ONLY
    direction: DirectionLike = Direction.CODE
    balanced: bool = False
    n_classes: int | None = None
    positions: PositionsLike = Positions.MEAN
    published: bool = False
    otherwise: Scorer | None = None
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.MEAN
    max_batches: int | None = None
    autocast: torch.dtype | None = None
    progress: Callable[[int], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", choice(Direction, self.direction, "direction"))
        object.__setattr__(self, "positions", choice(Positions, self.positions, "positions"))
        check_max_batches(self.max_batches, where="BetaRank")
        if self.n_classes is not None and (not self.balanced or self.n_classes < 1):
            raise InputError(
                f"BetaRank: n_classes is the number of classes, at least 1, for balanced=True; got "
                f"{self.n_classes} with balanced={self.balanced}"
            )
        if self.published and (self.balanced or self.positions is not Positions.MEAN):
            raise InputError(
                "BetaRank: published=True is the published code, which knows no classes and sums over "
                "positions; leave out balanced and positions"
            )
        check_otherwise(self.otherwise)
        super().__post_init__()

    def site_scores(self, graph: Graph) -> SiteScores:
        """The scores of the filters of every layer that was seen to write channels, of mean 1 in each."""
        made_even = stretched if self.published else of_mean_1
        return {key: made_even(scores) for key, scores in self.layer_scores(graph).items()}

    def unit_scores(self, graph: Graph) -> Values:
        """The mean over the writers of each unit, with groups that have none scored by `otherwise`."""
        raw = self.raw_unit_scores(graph)
        return filled(self, graph, raw, self.otherwise, lack="are written by no layer that it measures")

    def layer_scores(self, graph: Graph) -> dict[AxisKey, Tensor]:
        """Mean |W| · β of each filter [O] of every layer that writes free channels, as they come."""
        keys = [(axis.tensor, axis.axis) for axis in graph.axes if axis.free.any()]
        pool = self.positions is Positions.POOL
        recorder = MomentsRecorder(keys, pool=pool, published=self.published)

        def before(batch: Batch) -> None:
            labels = class_labels(batch.target, self.n_classes) if self.balanced else None
            recorder.start_batch(labels)

        run_batches(
            graph.model,
            self.batches,
            recorder.see,
            before=before,
            max_batches=self.max_batches,
            autocast=self.autocast,
            progress=self.progress,
        )
        layers = merged_over_processes(recorder.layers, keys)
        scores = {key: self._filters(key[0], layers[key]) for key in keys if key in layers}
        if scores and not any(values.any() for values in scores.values()):
            raise ScoreError(
                f"{self!r}: nothing that the model's {len(scores)} layers write varies over the samples, "
                "expected different ones; are all samples the same, or all weights 0?"
            )
        return scores

    def _filters(self, name: str, layer: LayerMoments) -> Tensor:
        """Mean |W| · β of the filters of one layer [O]."""
        written, read = (self._of_all_classes(classes) for classes in (layer.written, layer.read))
        _check(name, written, read)
        if self.published:
            kernel, positions = layer.geometry.kernel, written.mean.shape[1:]
            read_GP = published_moments(read, kernel, layer.width, positions)
        elif self.positions is Positions.POOL:
            read_GP = read
        else:
            read_GP = field_moments(read, layer.geometry)
        sigma_out_OP, sigma_in_GP = (
            moments.variance.sqrt().reshape(len(moments.mean), -1) for moments in (written, read_GP)
        )
        if not (sigma_in_GP.any() and sigma_out_OP.any()):
            what = "writes" if sigma_in_GP.any() else "reads"
            _log.warning(
                "%s: nothing that it %s varies in these batches: all its filters score 0", name, what
            )
        ratios_OP = betas(sigma_out_OP, sigma_in_GP, choice(Direction, self.direction, "direction"))
        return widened(layer.magnitudes) * (ratios_OP.sum(1) if self.published else ratios_OP.mean(1))

    def _of_all_classes(self, classes: ClassMoments) -> Moments:
        if not self.balanced:
            return classes[0]
        missing = [label for label in range(self.n_classes or 0) if label not in classes]
        if missing:
            raise ScoreError(
                f"{self!r}: {len(missing)} of {self.n_classes} classes have no sample in the batches, class "
                f"{missing[0]} is the first; expected one of each: give more batches, or mend n_classes"
            )
        return balanced_moments([classes[label] for label in sorted(classes)])


def _check(name: str, written: Moments, read: Moments) -> None:
    """Raise ScoreError where a layer's moments say nothing."""
    for moments, what in ((read, "reads"), (written, "writes")):
        finite = moments.mean.isfinite() & moments.m2.isfinite()
        if not finite.all():
            raise ScoreError(
                f"what {name!r} {what} is not finite at {int((~finite).sum())} of {finite.numel()} places, "
                "expected finite activations (and their squares in float32); look for NaN in the batches or "
                "the weights, or take another autocast dtype"
            )
    if written.count < 2:
        raise ScoreError(
            f"{name!r} saw a single sample in all batches, expected two or more: one has no spread"
        )
