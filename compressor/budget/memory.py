"""The budget of the memory that activations take at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compressor.budget.cost_fraction import CostFraction
from compressor.budget.ladder import Ladder
from compressor.core.graph import Graph
from compressor.profiling.peak import Held, PeakCost, peak_activation_bytes

__all__ = ["Memory"]

_SHOWN = 5


@dataclass(frozen=True, repr=False)
class Memory(CostFraction):
    """At most `fraction` of the bytes that activations take at once is left, for the example inputs.

    Only layers around the peak have to shrink, until the peak is elsewhere. A runtime that fuses norms and
    activations into convolutions needs less than that, an arena that grows in powers of two more:
    `profiling.memory` measures it.

    >>> Memory(0.5, round_to=8)
    Memory(0.5, round_to=8)
    """

    def cost(self, graph: Graph) -> PeakCost:
        """The peak of activation bytes, see `compressor.profiling.peak_activation_bytes`."""
        return peak_activation_bytes(graph)

    def holding(self, ladder: Ladder) -> str:
        """Where the peak is when all that may go is gone, which tensors it is of, and why they stay."""
        cost = self.cost(ladder.graph)
        whole, peak = cost.total(), cost.peak(ladder.mask(ladder.end))
        lines = [
            f"\n  the peak is at {_name(peak.module, peak.operator)}, where {len(peak.held)} tensors are held"
        ]
        for held in peak.held[:_SHOWN]:
            share = f"{held.bytes / whole:.1%} of all {cost.name}"
            lines.append(
                f"\n  {_name(held.module, held.operator)}: {share} ({'; '.join(_reasons(ladder, held))})"
            )
        if len(peak.held) > _SHOWN:
            lines.append(f"\n  and {len(peak.held) - _SHOWN} more")
        return "".join(lines)


def _name(module: str, operator: str) -> str:
    short = operator.removeprefix("aten.").partition(".")[0]
    return "an input" if operator == "input" else f"{module or 'the model itself'} ({short})"


def _reasons(ladder: Ladder, held: Held) -> Sequence[str]:
    """What keeps the channels of the tensor that stay: limits of their groups, else why they are pinned."""
    graph = ladder.graph
    if held.operator == "input":
        return ("the model's inputs stay as they are",)
    units = [axis.ravel() for axis in graph.axes_of(held.value).values()]
    free = np.unique(np.concatenate([*units, np.empty(0, np.int64)]))
    groups = np.unique(graph.group_of[free[free >= 0]]).tolist()
    limits = dict.fromkeys(ladder.allowances[group].hold for group in groups)
    if limits:
        return list(limits)[:3]
    pins = [
        f"pinned: {reason}"
        for axis in graph.axes
        if axis.role == "writer" and axis.tensor.rpartition(".")[0] == held.module
        for reason in graph.reasons.get((axis.tensor, axis.axis), ())
    ]
    return list(dict.fromkeys(pins))[:3] or ("none of its channels can be removed",)
