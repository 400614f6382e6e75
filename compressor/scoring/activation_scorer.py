"""What criteria on activations share: a mean over samples of what each channel's readers read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from compressor.core.graph import Graph
from compressor.errors import CompressorError, ScoreError
from compressor.observing import Batch, LayerCall, merged, run_batches
from compressor.observing.batches import check_max_batches
from compressor.scoring.base import AxisKey, Scorer, SiteScores
from compressor.scoring.otherwise import check_otherwise, filled
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike, Values

__all__ = ["ActivationScorer"]


@dataclass(frozen=True, repr=False, eq=False)
class ActivationScorer(Scorer):
    """A scorer that averages a measure of feature maps over the samples of all batches.

    The map of a channel is taken where it is read: what enters the convolution or matrix that reads the
    channel, behind every norm, activation, sum and pooling, whether these are modules or not. A channel
    of a residual stream has as many maps as readers, and a unit's score is their mean (`reduce`). A group
    with channels that no measured layer reads is scored by `otherwise`; without one it raises ScoreError.

    `batches` is read as `Taylor` says; targets are not looked at. The model runs in eval mode and is
    left as it was. Raises InputError where there is no batch and ScoreError for activations that are not
    finite. Sums are kept in float64 and no activation is.

    >>> import compressor as cp
    >>> class Largest(ActivationScorer):
    ...     '''The mean of the largest activation of each map.'''
    ...     def measure(self, maps):
    ...         return maps.flatten(2).amax(dim=2).sum(dim=0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), Largest([torch.randn(64, 2)]))
    Scores(Largest() of Sequential: 3 units in 1 group, ...)
    """

    batches: Iterable[object] = field(repr=False)
    _: KW_ONLY
    otherwise: Scorer | None = None
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.MEAN
    max_batches: int | None = None
    autocast: torch.dtype | None = None
    progress: Callable[[int], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_max_batches(self.max_batches, where=type(self).__name__)
        check_otherwise(self.otherwise)
        super().__post_init__()

    @abstractmethod
    def measure(self, maps: Tensor) -> Tensor | None:
        """The sum over samples [C] of a measure of maps [N, C, …]; None for maps it does not know.

        Behind the channels are the sizes of the map: [length], which is 1 for single numbers, [height,
        width] or three.
        """

    def site_scores(self, graph: Graph) -> SiteScores:
        """The mean over samples for each channel of every axis that was seen to read one."""
        axes = {(a.tensor, a.axis): a for a in graph.axes if a.role == "reader" and a.free.any()}
        sums: dict[AxisKey, Tensor] = {
            key: torch.zeros(a.size, dtype=torch.float64) for key, a in axes.items()
        }
        counts = dict.fromkeys(axes, 0)
        done = 0

        def see(call: LayerCall) -> None:
            key = call.weight, call.reader_axis
            if key not in axes or not call.input.numel():  # a batch without an example adds nothing
                return
            self._check_finite(call, done)
            maps = _maps(call)
            measured = self._measured(call, maps)
            if measured is not None:
                sums[key] += measured.cpu().to(torch.float64)
                counts[key] += len(maps)

        def after(_batch: Batch, _output: object) -> None:
            nonlocal done
            done += 1

        run_batches(
            graph.model,
            self.batches,
            see,
            after=after,
            max_batches=self.max_batches,
            autocast=self.autocast,
            progress=self.progress,
        )
        keys = sorted(axes)  # every process adds up the same numbers in the same order
        seen = merged(torch.tensor([counts[key] for key in keys], dtype=torch.float64)).tolist()
        return {key: merged(sums[key]) / count for key, count in zip(keys, seen, strict=True) if count}

    def unit_scores(self, graph: Graph) -> Values:
        """The mean over the readers of each unit, with groups that have none scored by `otherwise`."""
        raw = self.raw_unit_scores(graph)
        self.check(raw)
        return filled(self, graph, raw, self.otherwise, lack="are read by no layer whose inputs it measures")

    def check(self, raw: Values) -> None:
        """Raise ScoreError where the raw scores [n_units], NaN where there is none, cannot be used."""

    def _measured(self, call: LayerCall, maps: Tensor) -> Tensor | None:
        try:
            return self.measure(maps)
        except (CompressorError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:  # not the model's: its forward is under way
            raise ScoreError(
                f"{self!r}: the measure of what {call.weight!r} reads, {list(maps.shape)}, failed with "
                f"{type(error).__name__}: {error}"
            ) from error

    def _check_finite(self, call: LayerCall, done: int) -> None:
        if torch.isfinite(call.input.sum()):  # one number for all, which may also be too large itself
            return
        finite = torch.isfinite(call.input)
        if not finite.all():
            raise ScoreError(
                f"{self!r}: batch {done}: {int((~finite).sum())} of {finite.numel()} activations read by "
                f"{call.weight!r} are not finite; look for NaN in the batch or the weights, or take another "
                "autocast dtype"
            )


def _maps(call: LayerCall) -> Tensor:
    """The maps [N, C, …] that a call reads, in float32 or wider; a sequence's length is behind C."""
    maps = call.input.detach()
    if maps.dim() == 1:
        maps = maps[None]
    maps = maps.movedim(call.channel_dim, 1)
    if maps.dim() == 2:
        maps = maps[..., None]
    return maps if maps.dtype == torch.float64 else maps.float()
