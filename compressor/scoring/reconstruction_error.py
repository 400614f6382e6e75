"""Reconstruction error: what stays unexplained of the readers' outputs once they are fitted anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
import torch
from torch import Tensor

from compressor.core.graph import Axis, Graph, Group
from compressor.errors import InputError, ScoreError
from compressor.observing import (
    Followed,
    LayerCall,
    NormalEquations,
    Places,
    Sums,
    followed,
    inputs_at,
    loaded,
    n_places,
    outputs_at,
    running,
    taps_of,
)
from compressor.observing.batches import check_max_batches, device_of, output_of
from compressor.scoring.base import AxisKey, Scorer, SiteScores
from compressor.scoring.elimination import Reader, eliminate
from compressor.scoring.otherwise import check_otherwise, filled
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike, Values, is_positive
from compressor.scoring.weights import spread

__all__ = ["ReconstructionError"]


@dataclass(frozen=True, repr=False, eq=False)
class ReconstructionError(Scorer):
    """Scores a unit by how much the error of its readers grows when it goes and they are fitted anew.

    Channels are taken away one by one, each time the one whose loss the others make up for best (backward
    elimination, from the normal equations of each reader: no forward pass after the first). The score is
    the growth of the readers' squared error in that step, as a share of the variance of what they write:
    of the sum with the residual stream where their output is added to one, behind the batch norm if there
    is one. So scores are comparable between layers; with `order=budget.by_score_per_mac` a `Macs`
    budget weighs them against what they cost. Meant to go with `recovery.Reconstruction`, which does the
    fitting.

    `batches` are a few hundred examples without need of labels, read as `Taylor` says; `places` of each
    enter the sums (None: all), with `ridge` as in `recovery.reconstruct_`. A reader with K inputs
    (channels times taps) takes 8 K² bytes; one with more than `max_inputs` raises ScoreError. Groups that
    no layer reads are scored by `otherwise`; without one that raises, too. The model is left as it was.

    *Source: greedy selection by the reader's output: J.-H. Luo, J. Wu, W. Lin, 2017, arXiv 1707.06342,
    section 3.2.2; the refit inside the selection as block-wise optimal brain surgeon: B. Hassibi, D.
    Stork, 1992, "Second Order Derivatives for Network Pruning", equations 3 to 5.* Departures: elimination
    instead of selection, refitted at every step, and the share of the stream's variance as unit.

    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    >>> x = torch.randn(32, 4)
    >>> cp.score(cp.capture(net, x), ReconstructionError([x]))
    Scores(ReconstructionError() of Sequential: 3 units in 1 group, ...)
    """

    batches: Iterable[object] = field(repr=False)
    _: KW_ONLY
    otherwise: Scorer | None = None
    ridge: float = 1e-2
    places: int | None = 128
    max_inputs: int = 8192
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.NONE
    max_batches: int | None = None
    progress: Callable[[int], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not is_positive(self.ridge):
            raise InputError(f"ReconstructionError: ridge must be above 0, got {self.ridge!r}")
        check_max_batches(self.max_batches, where="ReconstructionError")
        check_otherwise(self.otherwise)
        super().__post_init__()

    def site_scores(self, graph: Graph) -> SiteScores:
        """The unit scores at every reader's channels."""
        axes = [axis for axis in graph.axes if axis.role == "reader" and axis.free.any()]
        return spread(np.nan_to_num(self.raw_unit_scores(graph)), axes)

    def unit_scores(self, graph: Graph) -> Values:
        """The growth of the error by unit, with groups that no layer reads scored by `otherwise`."""
        raw = self.raw_unit_scores(graph)
        return filled(self, graph, raw, self.otherwise, lack="are read by no layer with weights")

    def raw_unit_scores(self, graph: Graph) -> Values:
        """The growth of the error by unit; NaN for units of groups with one that no layer reads."""
        layers = self._observed(graph)
        values = np.full(graph.n_units, np.nan)
        for group in graph.groups:
            readers = [r for axis, seen in layers for r in _readers(axis, seen, group, self.ridge)]
            units = np.concatenate(group.cells).tolist()
            if not all(any(unit in reader.columns for reader in readers) for unit in units):
                continue
            order, growth = eliminate(readers, [cell.tolist() for cell in group.cells])
            values[order] = _rising(growth)
        return values

    def _observed(self, graph: Graph) -> list[tuple[Axis, _Layer]]:
        """The axes that layers read, and what was summed up of those layers."""
        axes = {(a.tensor, a.axis): a for a in graph.axes if a.role == "reader" and a.free.any()}
        layers: dict[AxisKey, _Layer] = {}
        places, done = Places(self.places), 0

        def see(one: Followed) -> None:
            key = one.call.weight, one.call.reader_axis
            if key in axes and one.call.input.numel():  # a batch without an example adds nothing
                layers.setdefault(key, _Layer()).add(one, places, self, done)

        with running(graph.model):
            for batch in loaded(self.batches, device_of(graph.model), max_batches=self.max_batches):
                with followed(graph.model, see):
                    output_of(graph.model, batch)
                done += 1
                if self.progress is not None:
                    self.progress(done)
        return [(axes[key], layers[key]) for key in axes if key in layers]


class _Layer:
    """The sums of one reader: inputs, outputs, and the variance of what they end in."""

    def __init__(self) -> None:
        self._sums, self._ends = Sums(), Sums()
        self.scales: Tensor | None = None
        self.groups = self.taps = 1

    def add(self, one: Followed, at: Places, scorer: ReconstructionError, batch: int) -> None:
        """Take one call into the sums."""
        call = one.call
        self.groups, self.taps = call.groups, taps_of(call)
        _check_inputs(call, scorer)
        examples, count = n_places(call)
        places = at.draw(examples, count, call.output.device)
        x, y = inputs_at(call, places), outputs_at(call, call.output, places)
        if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise ScoreError(
                f"{scorer!r}: batch {batch}: activations at {call.weight!r} are not finite; look for NaN in "
                "the batch or the weights"
            )
        self._sums.add(x, y)
        end = call.output if one.other is None else call.output + one.carried_back(one.other)
        ends = outputs_at(call, end, places)
        self._ends.add(ends[:, :, :0], ends)
        if self.scales is None:
            self.scales = one.scales.reshape(call.groups, -1)

    def equations(self) -> NormalEquations:
        """The normal equations of the layer, about means: a bias or norm takes those."""
        return self._sums.equations(intercept=True)

    def variance(self) -> float:
        """That of all outputs where they end, summed up."""
        assert self.scales is not None
        ends = self._ends.equations(intercept=True)
        return float((ends.yy.clamp(min=0) * self.scales.to(ends.yy.dtype) ** 2).sum())


def _check_inputs(call: LayerCall, scorer: ReconstructionError) -> None:
    inputs = call.input.shape[call.channel_dim] // call.groups * taps_of(call)
    if inputs > scorer.max_inputs:
        raise ScoreError(
            f"{scorer!r}: {call.weight!r} has {inputs:,} inputs (channels times taps), and sums of "
            f"{8 * inputs**2 / 2**30:.1f} GiB; expected at most max_inputs = {scorer.max_inputs:,}. Raise it "
            "where there is memory, or score with Norm()"
        )


def _readers(axis: Axis, layer: _Layer, group: Group, ridge: float) -> list[Reader]:
    """One reader for each group of the layer's channels in which units of `group` are read."""
    members = np.concatenate(group.cells)
    channels, units = axis.sites()
    own = np.isin(units, members)
    if not own.any():
        return []
    width = axis.size // layer.groups
    by_part: dict[int, dict[int, list[int]]] = {}
    for channel, unit in zip(channels[own].tolist(), units[own].tolist(), strict=True):
        columns = by_part.setdefault(channel // width, {}).setdefault(unit, [])
        start = channel % width * layer.taps
        columns.extend(range(start, start + layer.taps))
    equations, variance = layer.equations(), layer.variance()
    assert layer.scales is not None
    found = []
    for part, columns_of in by_part.items():
        xx, xy = equations.xx[part], equations.xy[part]
        # A part that reads only zeros or writes a constant loses nothing: any scale does.
        mean = float(xx.diagonal().mean()) or 1.0
        eye = torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
        inverse = torch.linalg.inv(xx + ridge * mean * eye)
        scales = layer.scales[part].to(xx.dtype) / (variance**0.5 if variance > 0 else 1.0)
        tensors = {unit: torch.tensor(c, device=xx.device) for unit, c in columns_of.items()}
        found.append(Reader(inverse, (inverse @ xy) * scales, tensors))
    return found


def _rising(growth: Values) -> Values:
    """The growth made strictly increasing, so that the scores hold the order of elimination."""
    risen = np.maximum.accumulate(growth)
    for position in range(1, len(risen)):
        risen[position] = max(risen[position], np.nextafter(risen[position - 1], np.inf))
    return risen
