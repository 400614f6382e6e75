"""How many filters each layer needs by its spectrum: a proposal with what it saves, and its plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd

from compressor.budget import Budget, CostFraction, Widths, by_score
from compressor.core.capture import capture
from compressor.core.graph import Axis, Graph, Mask
from compressor.core.plan import Plan
from compressor.design.ranks import GroupRank, SpectralRanks
from compressor.design.spectra import Spectra, WriterSpectrum, output_axes, written_axes
from compressor.design.spectral_widths import SpectralWidths
from compressor.errors import BudgetError, InputError
from compressor.profiling import macs, params
from compressor.scoring import DEFAULT, Scorer, score
from compressor.scoring.weight_function import WeightScore
from compressor.tables import aligned

__all__ = ["LayerWidth", "WidthProposal", "suggest_widths"]


@dataclass(frozen=True)
class LayerWidth:
    """One layer of a proposal: how many channels it writes now and would write, and its MACs.

    `rank` is the effective rank of its own filters (a sum where they fall into several groups or cells), None
    where it has no spectrum of its own, `dead` how many of them are dead; `group` names the channels that go
    together, None where none may go.
    """

    layer: str
    group: str | None
    now: int
    rank: float | None
    dead: int
    suggested: int
    macs: int
    suggested_macs: int


@dataclass(frozen=True, repr=False)
class WidthProposal:
    """Widths by effective rank; `str()` is a table.

    `plan` makes them of the model (`compressor.apply(model, plan)`), with the channels that `scorer` ranks
    lowest gone. `widths` are for a network that is trained from scratch: channels by layer; the plan, applied
    to a model that was built but not trained, has these shapes as well.
    """

    model: str
    layers: tuple[LayerWidth, ...]
    plan: Plan
    budget: str
    ranks: SpectralRanks
    scorer: str
    macs: int
    suggested_macs: int
    params: int
    suggested_params: int
    notes: tuple[str, ...] = field(default=())

    @property
    def widths(self) -> dict[str, int]:
        """The suggested number of output channels of each layer."""
        return {row.layer: row.suggested for row in self.layers}

    def __repr__(self) -> str:
        return (
            f"WidthProposal({self.model}: {self.suggested_macs:,} of {self.macs:,} MACs, {len(self.layers)} "
            "layers)"
        )

    def __str__(self) -> str:
        head = ("layer", "channels", "rank", "suggested", "MACs", "suggested MACs")
        rows = [_cells(row) for row in self.layers]
        other = self.macs - sum(row.macs for row in self.layers)
        if other:
            then = self.suggested_macs - sum(row.suggested_macs for row in self.layers)
            rows.append(("(products without weights)", "", "", "", f"{other:,}", f"{then:,}"))
        total = ("total", "", "", "", f"{self.macs:,}", f"{self.suggested_macs:,}")
        lines = aligned([head, *rows, total])
        rule = "-" * max(map(len, lines))
        lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
        left = self.suggested_macs / self.macs if self.macs else 1.0
        kept = self.suggested_params / self.params if self.params else 1.0
        saving = (
            f"{1 - left:.1%} of the MACs and {1 - kept:.1%} of the parameters saved; "
            f"rank: {self.ranks.measure!r} of {self.ranks.spectra!r}"
        )
        return "\n".join([f"{self.model}, {self.budget}", *lines, saving, *self.notes])


def suggest_widths(
    model: nn.Module | Graph,
    *args: Any,
    ranks: SpectralRanks | None = None,
    budget: Budget | None = None,
    round_to: int | Widths | None = None,
    scorer: Scorer | WeightScore | None = None,
    **kwargs: Any,
) -> WidthProposal:
    """How many filters each layer needs by the effective rank of its filters, or of what they answer.

    `args` and `kwargs` are example inputs; a graph has those that it was captured with. The model is left as
    it is. Without a `budget` each layer is proposed its effective rank, rounded up; with a fraction of a cost
    (`budget.Macs(0.5)`, `Params`, …) widths in proportion to it, so that the budget is met as any other is.
    `ranks` is `SpectralRanks()`: the participation ratio of filters, batch norms folded, the largest of the
    layers that write one residual stream. `round_to` is that of the budget. `scorer` chooses which channels
    the plan keeps, by default `scoring.DEFAULT`.

    A layer has no more directions than it reads: a wide layer behind a narrow one is proposed to be narrow
    (the expansions of a MobileNet), though its activation makes more of its channels than filters show. Where
    that is not meant, leave such layers to `ignore` of the budget.

    *Source: A. Hirani, W. H. Abdulla, 2024, arXiv 2410.21644, finds no theory of the number of filters, a
    "data-dependent process"; spectra of filter matrices are this library's proposal.*

    Raises InputError where no layer has a spectrum or a weight is not finite, and what budgets raise:
    NothingToPruneError, UnreachableBudgetError.

    >>> import torch, compressor as cp
    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=False))
    >>> _ = nn.init.ones_(net[0].weight)
    >>> print(suggest_widths(net, torch.ones(1, 1, 8, 8)))
    Sequential, SpectralWidths(SpectralRanks())
    layer  channels  rank  suggested   MACs  suggested MACs
    -------------------------------------------------------
    0             8   1.0          1  2,592             324
    2             4     -          4  4,608             576
    -------------------------------------------------------
    total                             7,200             900
    87.5% of the MACs and 87.5% of the parameters saved; rank: ParticipationRatio() of FilterSpectra()
    """
    graph = _graph(model, args, kwargs)
    chosen = _budget(budget, ranks, round_to)
    ranks, chosen = _measured(chosen, graph)
    found = ranks.of(graph)
    if found and not any(group.is_measured for group in found):
        raise InputError(
            f"suggest_widths: {graph.signature.model} has no convolution or matrix with channels that may "
            f"change (of {len(graph.groups)} groups of channels none has a spectrum); depthwise convolutions "
            "have none across channels"
        )
    scores = score(graph, DEFAULT if scorer is None else scorer)
    removed = chosen.choose(scores)
    return WidthProposal(
        model=graph.signature.model,
        layers=_layers(graph, found, removed),
        plan=graph.plan(removed, note=f"{scores.scorer}, {chosen!r}"),
        budget=repr(chosen),
        ranks=ranks,
        scorer=scores.scorer,
        macs=macs(graph).total(),
        suggested_macs=macs(graph).total(removed),
        params=params(graph).total(),
        suggested_params=params(graph).total(removed),
        notes=tuple(_notes(graph, found, ranks)),
    )


def _graph(model: nn.Module | Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
    if isinstance(model, Graph):
        if args or kwargs:
            raise InputError("suggest_widths(graph) takes no inputs: a graph has those of its capture")
        return model
    return capture(model, *args, **kwargs)


def _budget(
    budget: Budget | None, ranks: SpectralRanks | None, round_to: int | Widths | None
) -> SpectralWidths | CostFraction:
    """The budget with the order or the ranks that make its widths."""
    chosen: SpectralWidths | CostFraction
    if isinstance(budget, SpectralWidths):
        if ranks is not None:
            raise BudgetError(f"suggest_widths: {budget!r} has ranks of its own; give them once")
        chosen = budget
    elif budget is None:
        chosen = SpectralWidths(ranks or SpectralRanks())
    elif isinstance(budget, CostFraction) and budget.order is by_score:
        chosen = replace(budget, order=ranks or SpectralRanks())
    else:
        raise BudgetError(
            f"suggest_widths: {budget!r} does not leave the widths open; give a fraction of a cost without "
            "an order of its own, such as budget.Macs(0.5), or SpectralWidths(...), or none"
        )
    if round_to is None:
        return chosen
    if chosen.round_to != 1:
        raise BudgetError(f"suggest_widths: {budget!r} has a round_to of its own; give it once")
    return replace(chosen, round_to=round_to)


def _measured(
    budget: SpectralWidths | CostFraction, graph: Graph
) -> tuple[SpectralRanks, SpectralWidths | CostFraction]:
    """The budget, and its ranks, with spectra that are measured already."""
    ranks = budget.ranks if isinstance(budget, SpectralWidths) else budget.order
    assert isinstance(ranks, SpectralRanks)
    known = replace(ranks, spectra=_Measured(ranks.spectra, graph, ranks.spectra.of(graph)))
    if isinstance(budget, SpectralWidths):
        return known, replace(budget, ranks=known)
    return known, replace(budget, order=known)


@dataclass(frozen=True, repr=False, eq=False)
class _Measured(Spectra):
    """The spectra of one graph, so that batches are run once."""

    source: Spectra
    graph: Graph
    found: tuple[WriterSpectrum, ...]

    def __repr__(self) -> str:
        return repr(self.source)

    def of(self, graph: Graph) -> tuple[WriterSpectrum, ...]:
        return self.found if graph is self.graph else self.source.of(graph)


def _layers(graph: Graph, found: Sequence[GroupRank], removed: Mask) -> tuple[LayerWidth, ...]:
    """A row for each convolution, matrix and recurrent weight; MACs of a module are in its first row."""
    now, then = (macs(graph).by_module(gone) for gone in (None, removed))
    rows, listed = [], _listed(graph)
    times = Counter(_module(axis) for axis in listed)
    for axis in listed:
        positions = np.unique(graph.group_of[axis.units[axis.units >= 0]]).tolist()
        writers = [w for g in positions for w in found[g].writers if w.tensor == axis.tensor]
        module = _module(axis)
        rows.append(
            LayerWidth(
                layer=module if times[module] == 1 else axis.tensor,
                group=", ".join(graph.groups[g].name for g in positions) or None,
                now=axis.size,
                rank=sum(writer.rank for writer in writers) if writers else None,
                dead=sum(writer.dead for writer in writers),
                suggested=int((~axis.gone(removed)).sum()),
                macs=now.pop(module, 0),
                suggested_macs=then.pop(module, 0),
            )
        )
    return tuple(rows)


def _listed(graph: Graph) -> list[Axis]:
    """Where outputs lie in every weight that multiplies; depthwise convolutions among them."""
    measured = {axis.tensor for axis in written_axes(graph)}
    convolutions = {f"{name}.weight" for name, m in graph.model.named_modules() if isinstance(m, _ConvNd)}
    return [axis for axis in output_axes(graph) if axis.tensor in measured | convolutions]


def _module(axis: Axis) -> str:
    """The path of the module that multiplies by the weight."""
    module, _, computed = axis.tensor.partition(".parametrizations.")
    return module if computed else axis.tensor.rpartition(".")[0]


def _notes(graph: Graph, found: Sequence[GroupRank], ranks: SpectralRanks) -> Iterator[str]:
    shared = [group for group in found if len({writer.tensor for writer in group.writers}) > 1]
    if shared:
        rule = getattr(ranks.reconcile, "__name__", repr(ranks.reconcile))
        yield (
            f"{len(shared)} of {len(found)} groups are written by several layers (residual streams, say) and "
            f"have one width: the {rule} of their ranks"
        )
    empty = [group.group for group in found if group.is_measured and group.rank == 0]
    if empty:
        yield f"nothing but zeros, the least width suggested: {', '.join(empty)}"
    without = list(dict.fromkeys(group.group for group in found if not group.is_measured))
    if without:
        yield (
            "no spectrum across channels (depthwise, or heads and dims of attention), taken to be in full "
            f"use: {', '.join(without[:3])}{f' and {len(without) - 3} more' if len(without) > 3 else ''}"
        )


def _cells(row: LayerWidth) -> tuple[str, ...]:
    rank = "-" if row.rank is None else f"{row.rank:.1f}"
    numbers = (f"{row.macs:,}", f"{row.suggested_macs:,}")
    return (row.layer, str(row.now), rank, str(row.suggested), *numbers)
