"""Removing silenced channels without changing what the network computes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import apply, check_plan
from compressor.core.tape import output_tensors
from compressor.core.verify import removed_units
from compressor.errors import InputError, ModelError, PlanMismatchError, VerifyError
from compressor.observing.batches import Batch
from compressor.observing.running import run_batches
from compressor.recovery.constants import ConstantWatch
from compressor.recovery.folding import Folding

__all__ = ["FoldedReader", "Removal", "remove_silenced"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldedReader:
    """What was folded for one reader of removed channels.

    `into` names the tensor that holds the constant now, `largest` is the largest number that was added
    to an output channel, `border` how much of it was wrong at the borders, see `remove_silenced`.
    """

    reader: str
    channels: int
    into: str
    largest: float
    border: float


@dataclass(frozen=True, eq=False)
class Removal:
    """The smaller `model`, and how it differs from the one it was cut from.

    `difference` is the largest absolute difference of an output on the first batch, `size` the largest
    output there. `unfolded` are readers that are no convolutions or matrices, or did not run, `statistics`
    the groups that a norm takes its statistics over, which are those of fewer channels now.
    """

    model: nn.Module
    readers: tuple[FoldedReader, ...]
    difference: float
    size: float
    unfolded: tuple[str, ...]
    statistics: tuple[str, ...]

    @property
    def border(self) -> float:
        """The most that a constant was off at a border, in what a reader writes; 0 without zero padding."""
        return max((reader.border for reader in self.readers), default=0.0)

    def __str__(self) -> str:
        lines = [
            f"outputs differ by at most {self.difference:.2g} (they are up to {self.size:.3g}); "
            f"constants of {len(self.readers)} readers were folded"
        ]
        uneven = [reader for reader in self.readers if reader.border > 0]
        if uneven:
            worst = max(uneven, key=lambda reader: reader.border)
            lines.append(
                f"not exact at the zero-padded borders of {len(uneven)} of them, up to {worst.border:.2g} in "
                f"what {worst.reader} writes"
            )
        if self.unfolded:
            lines.append(f"not folded, as no convolution or matrix was seen: {', '.join(self.unfolded)}")
        if self.statistics:
            lines.append(f"norms over fewer channels now: {', '.join(self.statistics)}")
        return "\n".join(lines)


def remove_silenced(
    plan: Plan,
    graph: Graph,
    batches: Iterable[object],
    *,
    model: nn.Module | None = None,
    tolerance: float = 1e-5,
    max_batches: int | None = None,
) -> Removal:
    """A new model without the planned channels that computes what `model` does, where they are silent.

    A channel whose scale γ was trained to zero still emits a constant, ReLU(β) say. The constants are
    measured where they are read, whatever stands in between (depthwise convolutions, concatenations,
    sums): on `batches` of inputs, at least two examples, which have to agree in them. What they add to a
    reader's output goes into its bias, into the mean of the batch norm that follows, or into a new bias.
    So a cut after sparse training changes nothing.

    Exact away from borders: where a convolution pads with zeros, a constant other than 0 is missing there,
    which no bias can express. How much is in `Removal.border` and, at the outputs, `Removal.difference`,
    and a warning is logged; `MaskSparsity(shift=Decay(steps))` brings the constants themselves to zero,
    where the activation of 0 is 0. Norms that run over several channels (LayerNorm, GroupNorm) take their
    statistics over fewer of them, which is reported in the same way.

    `graph` is a capture of the model that was planned for; `model` another one of its structure, such as
    an average of weights. It stays as it is. A new bias is no part of the unpruned architecture, and `save`
    refuses it; layers that have a bias, or a batch norm behind them, get none.

    Raises PlanMismatchError for a plan of another model; InputError where a channel is not silent
    (examples differ by more than `tolerance` of the size of what is read), or there are fewer than two
    examples; ModelError where a constant has no place.

    >>> import torch, compressor as cp
    >>> net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Sigmoid(), nn.Linear(6, 2)).eval()
    >>> graph = cp.capture(net, torch.rand(2, 4))
    >>> plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    >>> (cut,) = (cut for cut in plan.cuts if cut.tensor == "1.weight")
    >>> with torch.no_grad():  # what sparse training comes to
    ...     _ = net[1].weight.index_fill_(0, torch.tensor(cut.removed), 0.0)
    >>> removal = remove_silenced(plan, graph, [torch.rand(8, 4)])
    >>> removal.model[3], removal.difference < 1e-6
    (Linear(in_features=3, out_features=2, bias=True), True)
    """
    whole = graph.model if model is None else model
    check_plan(whole, plan)
    removed = _removed(plan, graph)
    readers = {(cut.tensor, cut.axis): cut for cut in plan.cuts if cut.role == "reader"}
    watch = ConstantWatch(readers, tolerance)
    first: list[tuple[Batch, list[Tensor]]] = []

    def keep(batch: Batch, output: Any) -> None:
        if not first:
            first.append((batch, [tensor.detach().clone() for tensor in output_tensors(output)]))

    run_batches(
        whole,
        batches,
        watch,
        before=lambda batch: watch.start_batch(),
        after=keep,
        max_batches=max_batches,
    )
    if watch.seen and watch.examples < 2:
        raise InputError(
            "the batches hold a single example, from which it cannot be told whether a channel is constant; "
            "give at least two"
        )
    small = apply(whole, plan)
    folding = Folding(small, plan, graph, whole)
    folded = []
    for constant in watch.constants():
        added = float(constant.added.abs().max())
        if added or constant.border:
            into = folding.add_(constant)
            folded.append(FoldedReader(constant.reader, constant.channels, into, added, constant.border))
    seen = {reader for reader, _, _ in watch.seen}
    unfolded = tuple(dict.fromkeys(tensor for tensor, _ in readers if tensor not in seen))
    difference, size = _compared(small, *first[0])
    statistics = [graph.groups[g] for g in np.unique(graph.group_of[removed]).tolist()]
    removal = Removal(
        small,
        tuple(folded),
        difference,
        size,
        unfolded,
        tuple(group.name for group in statistics if group.statistics),
    )
    _warn(removal, tolerance)
    return removal


def _removed(plan: Plan, graph: Graph) -> Any:
    try:
        return removed_units(graph, plan)
    except VerifyError as error:
        raise PlanMismatchError(f"the plan does not fit {graph!r}: {error}") from error


def _compared(small: nn.Module, batch: Batch, expected: list[Tensor]) -> tuple[float, float]:
    """The largest difference of outputs, and the largest output."""
    found: list[Tensor] = []

    def keep(_: Batch, output: Any) -> None:
        found.extend(output_tensors(output))

    item = (*batch.args, batch.target) if batch.args else batch.kwargs
    run_batches(small, [item], lambda call: None, after=keep)
    pairs = [(a, b) for a, b in zip(expected, found, strict=True) if a.is_floating_point() and a.numel()]
    difference = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
    return difference, max((float(a.abs().max()) for a, _ in pairs), default=0.0)


def _warn(removal: Removal, tolerance: float) -> None:
    off = not removal.difference <= tolerance * max(removal.size, 1.0)
    if off and removal.unfolded and not removal.border and not removal.statistics:
        raise ModelError(
            f"outputs differ by {removal.difference:.2g} (up to {removal.size:.3g}), as {removal.unfolded} "
            f"read constants and are no convolutions or matrices, so that these cannot be folded; train the "
            f"shifts to zero, too (MaskSparsity(shift=Decay(steps)))"
        )
    if off:
        log.warning("%s", removal)
