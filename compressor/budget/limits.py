"""What a budget may not do: layers to leave alone, ratios by layer, rounding, least widths.

Limits are given in the user's words and resolved here into the numbers of ranks that each group may
lose. Budgets only ever choose among those numbers, so no budget can overstep a limit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from torch import nn

from compressor.budget.layers import Layers, Target
from compressor.budget.numbers import exact
from compressor.core.graph import PINNED, Graph, Group
from compressor.errors import BudgetError

__all__ = ["Allowance", "Limits", "allowances"]

Ratios = Mapping[str, float]


@dataclass(frozen=True)
class Limits:
    """What every budget honours, as the user said it; `Budget` has the meaning of each."""

    ignore: tuple[Target, ...] = ()
    max_ratio: float | Ratios = 1.0
    ratios: Ratios | None = None
    min_channels: int = 1
    round_to: int = 1


@dataclass(frozen=True, eq=False)
class Allowance:
    """How many ranks a group may lose, ascending, and in words what stops it at the last number.

    `kind` says who stops it: "end" (one channel must stay), or the name of the limit.
    `rounded_away` marks a group that should shrink and stays whole only because of rounding.
    """

    levels: npt.NDArray[np.int64]
    kind: str
    hold: str
    rounded_away: bool = False


def allowances(graph: Graph, limits: Limits) -> tuple[Allowance, ...]:
    """For each group of the graph the numbers of ranks that it may lose.

    Raises BudgetError where a pattern, class or module matches nothing, and where limits contradict
    each other.
    """
    layers = Layers(graph)
    ignored: dict[int, str] = {}
    for target in limits.ignore:
        for position in layers.groups_of("ignore", target):
            ignored.setdefault(position, _words(target))
    bounds = _bounds(graph, layers, limits.max_ratio)
    asked = _asked(graph, layers, limits.ratios or {}, ignored)
    beside = _beside(graph, ignored)
    found = []
    for position, group in enumerate(graph.groups):
        if position in ignored:
            nothing = np.zeros(1, dtype=np.int64)
            found.append(Allowance(nothing, "ignore", f"ignored by {ignored[position]}"))
            continue
        bound = min(bounds.get(position, ()), default=(Fraction(1), ""))
        free = _free(group, beside.get(position, 0), bound, limits)
        found.append(_fixed(group, free, bound, asked[position]) if position in asked else free)
    return tuple(found)


def _words(target: Target) -> str:
    if isinstance(target, str):
        return repr(target)
    return f"a {type(target).__name__} object" if isinstance(target, nn.Module) else target.__name__


def _bounds(graph: Graph, layers: Layers, max_ratio: float | Ratios) -> dict[int, list[tuple[Fraction, str]]]:
    """For each group every largest ratio that speaks of it, with the words for it."""
    if not isinstance(max_ratio, Mapping):
        words = f"max_ratio = {max_ratio:g}"
        return {position: [(exact(max_ratio), words)] for position in range(len(graph.groups))}
    found: dict[int, list[tuple[Fraction, str]]] = {}
    for pattern, value in max_ratio.items():
        for position in layers.groups_of("max_ratio", pattern):
            words = f"max_ratio[{pattern!r}] = {value:g}"
            found.setdefault(position, []).append((exact(value), words))
    return found


def _asked(
    graph: Graph, layers: Layers, ratios: Ratios, ignored: Mapping[int, str]
) -> dict[int, tuple[str, Fraction]]:
    """For each group the last entry of `ratios` that speaks of it; each must have an effect."""
    asked: dict[int, tuple[str, Fraction]] = {}
    spoken: dict[str, list[int]] = {}
    for pattern, value in ratios.items():
        spoken[pattern] = layers.groups_of("ratios", pattern)
        asked.update((position, (pattern, exact(value))) for position in spoken[pattern])
    for pattern, positions in spoken.items():
        where = f"ratios[{pattern!r}] = {ratios[pattern]:g}"
        if not positions and ratios[pattern] > 0:
            raise BudgetError(
                f"{where} speaks of layers whose channels cannot be removed at all; leave it out "
                "(graph.explain(name) says why)"
            )
        if positions and all(position in ignored for position in positions):
            raise BudgetError(f"{where} speaks of layers that `ignore` leaves alone; drop one of the two")
        if positions and all(asked[position][0] != pattern for position in positions):
            later = asked[positions[0]][0]
            raise BudgetError(
                f"{where} has no effect, because the later {later!r} speaks of the same groups; "
                "put "
                "general patterns first"
            )
    return asked


def _beside(graph: Graph, ignored: Collection[int]) -> dict[int, int]:
    """For the largest open group of an axis how many channels of that axis stay in any case.

    A width that is to be a multiple is the width of the tensor, pinned and ignored channels
    included. Further open groups of the same axis are rounded on their own, so the sum is a
    multiple, too.
    """
    beside: dict[int, int] = {}
    for axis in graph.axes:
        owners = np.append(graph.group_of, PINNED)[axis.units]
        homed = [g for g in np.unique(owners[owners >= 0]).tolist() if graph.groups[g].name == axis.tensor]
        open_ = [g for g in homed if g not in ignored]
        # What a factor of an axis (heads, dims of heads) keeps is rounded by itself.
        if axis.role == "writer" and open_ and axis.units.ndim == 1:
            largest = max(open_, key=lambda g: int((owners == g).sum()))
            staying = (owners == PINNED) | np.isin(owners, list(ignored))
            beside.setdefault(largest, int(staying.sum()))
    return beside


def _free(group: Group, beside: int, bound: tuple[Fraction, str], limits: Limits) -> Allowance:
    """What a group may lose when no ratio of its own is asked of it."""
    size = group.size
    last = "last channel" if group.channels == 1 else f"last {group.channels} channels"
    least_kept = (
        (1, "end", f"its {last} must stay"),
        (
            -(-limits.min_channels // group.channels),
            "min_channels",
            f"min_channels = {limits.min_channels}",
        ),
        (size - math.floor(bound[0] * size), "max_ratio", bound[1]),
    )
    least, kind, hold = max(least_kept, key=lambda item: item[0])  # the first of equals
    kept = np.arange(size, 0, -1, dtype=np.int64)
    even = (kept * group.channels + beside) % limits.round_to == 0
    levels = np.flatnonzero((kept == size) | ((kept >= least) & even)).astype(np.int64)
    if size - levels[-1] > min(least, size):
        kind, hold = (
            "round_to",
            f"round_to = {limits.round_to} of {size * group.channels + beside} channels",
        )
    return Allowance(levels, kind, hold, kind == "round_to" and len(levels) == 1 and size > 1)


def _fixed(
    group: Group, free: Allowance, bound: tuple[Fraction, str], asked: tuple[str, Fraction]
) -> Allowance:
    """The one number of ranks for a group with a ratio of its own, rounded so that more is kept."""
    pattern, ratio = asked
    words = f"ratios[{pattern!r}] = {float(ratio):g}"
    if ratio > bound[0]:
        raise BudgetError(
            f"{words} contradicts {bound[1]} for {group.name}; lower the one or raise the other"
        )
    level = free.levels[free.levels <= math.floor(ratio * group.size)].max()
    if level == 0 and ratio > 0:
        words += ", less than its smallest step"
    return Allowance(np.array([level], dtype=np.int64), "ratios", words, level == 0 < ratio)
