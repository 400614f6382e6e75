"""Why a budget cannot go further, in words: what is pinned, and which limit holds which layer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from compressor.budget.ladder import Ladder
from compressor.core.graph import Axis
from compressor.profiling.priced import Priced

__all__ = ["uncut_by_rounding", "what_holds", "why_nothing"]

_SHOWN = 5


def why_nothing(ladder: Ladder) -> str:
    """Why the groups of the graph cannot lose more, and why other channels are in no group.

    The most frequent reasons come first.
    """
    held = [allowance.hold for allowance in ladder.allowances]
    pinned = [
        # Without the operator, so that the same reason in many places is one.
        re.sub(r" \([^()]* in [^()]*\)$", "", reason)
        for axis in _channel_axes(ladder)
        for reason in ladder.graph.reasons.get((axis.tensor, axis.axis), ())
    ]
    lines = [*_counted(held, "group", "groups"), *_counted(pinned, "axis pinned", "axes pinned")]
    return "; ".join(lines) or "the model has no channels that another layer reads"


def what_holds(ladder: Ladder, cost: Priced) -> str:
    """The modules that cost most when everything that may go is gone, by what holds them."""
    holds = _holds_by_module(ladder)
    together: dict[tuple[str, ...], list[tuple[float, str]]] = {}
    for module, value in cost.by_module(ladder.mask(ladder.end)).items():
        reasons = holds.get(module) or ("none of its channels can be removed",)
        together.setdefault(reasons, []).append((value, module or "the model itself"))
    ranked = sorted(together.items(), key=lambda item: -sum(value for value, _ in item[1]))
    lines = []
    for reasons, modules in ranked[:_SHOWN]:
        share = sum(value for value, _ in modules) / cost.total()
        name = max(modules, key=lambda item: item[0])[1]
        name += f" and {len(modules) - 1} more" if len(modules) > 1 else ""
        lines.append(f"\n  {name}: {share:.1%} of all {cost.name} ({'; '.join(reasons[:3])})")
    return "".join(lines)


def uncut_by_rounding(ladder: Ladder) -> list[str]:
    """The groups that should shrink and stay whole because of rounding, in words."""
    return [
        f"{group.name} ({allowance.hold})"
        for group, allowance in zip(ladder.graph.groups, ladder.allowances, strict=True)
        if allowance.rounded_away
    ]


def _channel_axes(ladder: Ladder) -> Iterator[Axis]:
    """All axes but the extents of kernels: that those stay is no news."""
    return (axis for axis in ladder.graph.axes if axis.axis < 2)


def _holds_by_module(ladder: Ladder) -> dict[str, tuple[str, ...]]:
    """For each module what keeps its channels, limits before pins, without repetition."""
    graph = ladder.graph
    holds: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for axis in _channel_axes(ladder):
        limits, pins = holds.setdefault(axis.tensor.rpartition(".")[0], ({}, {}))
        for position in np.unique(graph.group_of[axis.sites()[1]]).tolist():
            limits[ladder.allowances[position].hold] = None
        for reason in graph.reasons.get((axis.tensor, axis.axis), ()):
            pins[f"pinned: {reason}"] = None
    return {module: (*sorted(limits), *pins) for module, (limits, pins) in holds.items()}


def _counted(reasons: Iterable[str], one: str, many: str) -> list[str]:
    ranked = Counter(reasons).most_common()
    lines = [f"{count} {one if count == 1 else many}: {reason}" for reason, count in ranked[:_SHOWN]]
    if len(ranked) > _SHOWN:
        lines.append(f"and {len(ranked) - _SHOWN} more reasons")
    return lines
