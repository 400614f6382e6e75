"""Why a budget cannot go further, in words: what is pinned, and which limit holds which layer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from compressor.budget.ladder import Ladder
from compressor.profiling.cost import Cost

__all__ = ["uncut_by_rounding", "what_holds", "why_nothing"]

_SHOWN = 5


def why_nothing(ladder: Ladder) -> str:
    """Why no group of the graph can lose anything, the most frequent reasons first."""
    graph = ladder.graph
    held = [a.hold for a in ladder.allowances]
    pinned = [reason for reasons in graph.reasons.values() for reason in reasons]
    lines = [*_counted(held, "group", "groups"), *_counted(pinned, "axis pinned", "axes pinned")]
    if not lines:
        return "the model has no channels that another layer reads"
    return "; ".join(lines)


def what_holds(ladder: Ladder, cost: Cost) -> str:
    """The modules that cost most when everything that may go is gone, each with what holds it."""
    removed = ladder.mask(ladder.end)
    whole = cost.total()
    left = sorted(cost.by_module(removed).items(), key=lambda item: -item[1])
    holds = _holds_by_module(ladder)
    lines = []
    for module, value in left[:_SHOWN]:
        if value:
            reasons = "; ".join(holds.get(module, ["none of its channels can be removed"])[:3])
            lines.append(
                f"\n  {module or 'the model itself'}: {value / whole:.1%} of all {cost.name} "
                f"({reasons})"
            )
    return "".join(lines)


def uncut_by_rounding(ladder: Ladder) -> list[str]:
    """The groups that could shrink but for `round_to`, in words."""
    return [
        f"{group.name} ({allowance.hold})"
        for group, allowance in zip(ladder.graph.groups, ladder.allowances, strict=True)
        if allowance.kind == "round_to" and len(allowance.levels) == 1 and group.size > 1
    ]


def _holds_by_module(ladder: Ladder) -> dict[str, list[str]]:
    """For each module what keeps its channels, limits before pins, without repetition."""
    graph = ladder.graph
    holds: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for axis in graph.axes:
        limits, pins = holds.setdefault(axis.tensor.rpartition(".")[0], ({}, {}))
        for position in np.unique(graph.group_of[axis.units[axis.units >= 0]]).tolist():
            limits[ladder.allowances[position].hold] = None
        if axis.axis < 2:  # that a kernel keeps its extent is no news
            for reason in graph.reasons.get((axis.tensor, axis.axis), ()):
                pins[f"pinned: {reason}"] = None
    return {module: [*limits, *pins] for module, (limits, pins) in holds.items()}


def _counted(reasons: Iterable[str], one: str, many: str) -> list[str]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    lines = [
        f"{count} {one if count == 1 else many}: {reason}" for reason, count in ranked[:_SHOWN]
    ]
    if len(ranked) > _SHOWN:
        lines.append(f"and {len(ranked) - _SHOWN} more reasons")
    return lines
