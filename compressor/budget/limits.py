"""What a budget may not do: layers to leave alone, ratios by layer, rounding, least widths.

Limits are given in the user's words and resolved here into the numbers of ranks that each group may
lose. Budgets only ever choose among those numbers, so no budget can overstep a limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from torch import nn

from compressor.budget.factors import Lost, factors_of, partners, shared, widths
from compressor.budget.layers import Layers, Target
from compressor.budget.numbers import exact
from compressor.budget.rounding import Step, rounding
from compressor.budget.widths import Widths
from compressor.core.graph import Graph, Group
from compressor.errors import BudgetError

__all__ = ["Allowance", "Limits", "allowances"]

Ratios = Mapping[str, float]


@dataclass(frozen=True)
class Limits:
    """What every budget honours, as the user said it; `Budget` has the meaning of each.

    `held` are groups by position that lose nothing for another reason, which it gives in words.
    """

    ignore: tuple[Target, ...] = ()
    max_ratio: float | Ratios = 1.0
    ratios: Ratios | None = None
    min_channels: int = 1
    round_to: int = 1
    widths: Widths | None = None
    held: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Allowance:
    """How many ranks a group may lose, ascending, and in words what stops it at the last number.

    `kind` says who stops it: "end" (one channel must stay), "held", or the name of the limit.
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
    steps = rounding(graph, ignored)
    whole = np.zeros(1, dtype=np.int64)
    none = [None] * len(graph.groups)
    worth: Sequence[Lost | None] = none if limits.widths is None else limits.widths.rungs(graph)
    rungs = [
        whole
        if position in ignored or position in limits.held
        else _rungs(group, steps[position], limits, worth[position])
        for position, group in enumerate(graph.groups)
    ]
    fixed, most = _of_factors(graph, rungs, asked, bounds, limits)
    found = []
    for position, group in enumerate(graph.groups):
        bound = min(bounds.get(position, ()), default=(Fraction(1), ""))
        if position in ignored:
            found.append(Allowance(whole, "ignore", f"ignored by {ignored[position]}"))
            continue
        if position in limits.held:
            found.append(_held(group, limits.held[position], asked.get(position)))
            continue
        free = _free(group, rungs[position], steps[position], most.get(position), bound, limits)
        if position in asked:
            others = any(fixed.get(other, 0) for other in partners(graph, position))
            own = fixed.get(position)
            found.append(_fixed(group, free, bound, asked[position], shared=own, others_go=others))
        else:
            found.append(free)
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
                f"{where} has no effect, because the later {later!r} speaks of the same groups; put general "
                "patterns first"
            )
    return asked


def _rungs(group: Group, step: Step, limits: Limits, worth: Lost | None) -> Lost:
    """The numbers of ranks that a group may lose so that what it keeps is a multiple, or all.

    `worth` are the only ones that are allowed at all.
    """
    kept = np.arange(group.size, 0, -1, dtype=np.int64)
    even = (kept * step.channels + step.beside) % limits.round_to == 0
    if worth is not None:
        even &= np.isin(np.arange(group.size), worth)
    return np.flatnonzero((kept == group.size) | even).astype(np.int64)


def _of_factors(
    graph: Graph,
    rungs: Sequence[Lost],
    asked: Mapping[int, tuple[str, Fraction]],
    bounds: Mapping[int, list[tuple[Fraction, str]]],
    limits: Limits,
) -> tuple[dict[int, int], dict[int, tuple[int, int]]]:
    """The ranks that `ratios` ask for, and the most that `min_channels` and `max_ratio` leave.

    Both only for groups whose channels have several factors, shared among those as by `factors.shared`.
    """
    crossed = factors_of(graph)
    if not crossed:
        return {}, {}

    of_home = {p: min(Fraction(1), Fraction(limits.min_channels, n)) for p, n in widths(graph).items()}
    of_bounds = {
        product: 1 - min((ratio for p in product for ratio, _ in bounds.get(p, ())), default=Fraction(1))
        for product in graph.crossed
    }
    of_asked = dict(of_home)
    for product in graph.crossed:
        # Of two patterns that speak of heads, that of the dims says which layer is meant.
        for position in [p for p in product if p in asked][-1:]:
            of_asked[product] = max(1 - asked[position][1], of_home.get(product, Fraction(0)))
    chosen = crossed & asked.keys()
    first = [levels if position in chosen else levels[:1] for position, levels in enumerate(rungs)]
    exactly = shared(graph, first, of_asked)
    rest = [exactly[p : p + 1] if p in chosen else levels for p, levels in enumerate(rungs)]
    by_count, by_ratio = shared(graph, rest, of_home), shared(graph, rest, of_bounds)

    def unless_last(lost: Lost, position: int) -> int:
        # Where the last rung is reached it is the rungs that hold the group, not the limit.
        size, level = graph.groups[position].size, int(lost[position])
        return size if level == rungs[position][-1] else level

    fixed = {position: int(exactly[position]) for position in chosen}
    most = {p: (unless_last(by_count, p), unless_last(by_ratio, p)) for p in crossed}
    return fixed, most


def _free(
    group: Group,
    rungs: Lost,
    step: Step,
    most: tuple[int, int] | None,
    bound: tuple[Fraction, str],
    limits: Limits,
) -> Allowance:
    """What a group may lose when no ratio of its own is asked of it.

    `most` is what `min_channels` and `max_ratio` leave when its channels have other factors, too.
    """
    size = group.size
    last = "last channel" if group.channels == 1 else f"last {group.channels} channels"
    if most is None:
        most = size + limits.min_channels // -group.channels, math.floor(bound[0] * size)
    least_kept = (
        (1, "end", f"its {last} must stay"),
        (size - most[0], "min_channels", f"min_channels = {limits.min_channels}"),
        (size - most[1], "max_ratio", bound[1]),
    )
    least, kind, hold = max(least_kept, key=lambda item: item[0])  # the first of equals
    levels = rungs[(rungs == 0) | (rungs <= size - least)]
    if size - levels[-1] > min(least, size):
        kind, hold = "round_to", f"round_to = {limits.round_to} of {step.words(size)}"
        if limits.widths is not None:
            hold = f"of {step.words(size)} no fewer pay by the {type(limits.widths).__name__}"
    return Allowance(levels, kind, hold, kind == "round_to" and len(levels) == 1 and size > 1)


def _held(group: Group, why: str, asked: tuple[str, Fraction] | None) -> Allowance:
    if asked is not None:
        raise BudgetError(
            f"ratios[{asked[0]!r}] = {float(asked[1]):g} cannot be met for {group.name}: {why}; prune in one "
            "step"
        )
    return Allowance(np.zeros(1, dtype=np.int64), "held", why)


def _fixed(
    group: Group,
    free: Allowance,
    bound: tuple[Fraction, str],
    asked: tuple[str, Fraction],
    *,
    shared: int | None,
    others_go: bool,
) -> Allowance:
    """The one number of ranks for a group with a ratio of its own, rounded so that more is kept.

    `shared` is that number when its channels have other factors, too; `others_go` says that those
    lose some.
    """
    pattern, ratio = asked
    words = f"ratios[{pattern!r}] = {float(ratio):g}"
    if ratio > bound[0]:
        raise BudgetError(
            f"{words} contradicts {bound[1]} for {group.name}; lower the one or raise the other"
        )
    level = shared
    if level is None:
        level = int(free.levels[free.levels <= math.floor(ratio * group.size)].max())
    idle = level == 0 < ratio and not others_go
    if idle:
        words += ", less than its smallest step"
    return Allowance(np.array([level], dtype=np.int64), "ratios", words, idle)
