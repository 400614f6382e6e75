"""Gradual pruning: the same budget in several steps, with scores taken anew after each of them.

All decisions are made on the graph of the *original* model: the scores of a model that was pruned
already are carried back to it. So fractions, ratios and limits mean in the last of n steps what
they mean in one step, and what went once never comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import numpy.typing as npt

from compressor.budget.base import Budget
from compressor.core.channels import UnitArray
from compressor.core.channels import gone as away
from compressor.core.graph import PINNED, Axis, Graph
from compressor.core.plan import Plan
from compressor.errors import BudgetError
from compressor.scoring import Scores

__all__ = ["Step", "next_step", "stages"]

Mask = npt.NDArray[np.bool_]
_HELD = "its channels can no longer go from the model that was pruned so far"


@dataclass(frozen=True, eq=False)
class Step:
    """One step: `plan` fits the model as it is now, `removed` counts from the start.

    `removed` [n_units of the original graph] holds everything that is gone after this step:
    `original.plan(removed)` is the one plan that leads from the original model to here.
    """

    removed: Mask
    plan: Plan


def stages(budget: Budget, steps: int) -> tuple[Budget, ...]:
    """The budgets of a pruning in `steps` steps; the last one is `budget` itself.

    >>> from compressor.budget import Macs
    >>> stages(Macs(0.25), 2)
    (Macs(0.5), Macs(0.25))
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
        raise BudgetError(f"steps = {steps!r}: a whole number, at least 1, is expected")
    count = int(steps)
    return tuple(budget.at_step(step, count) for step in range(1, count + 1))


def next_step(budget: Budget, scores: Scores, *, original: Graph, removed: Mask | None = None) -> Step:
    """The next step of a gradual pruning under `budget`, one of `stages`.

    `scores` are those of the model as it is now, captured anew; `original` is the graph of the
    model before the first step, and `removed` [n_units of original] what the steps so far removed.
    Groups with a channel that the model as it is now cannot lose lose no more.

        graph, small, removed = capture(model, x), model, None
        for stage in stages(budget, 3):
            now = score(capture(small, x), scorer)
            step = next_step(stage, now, original=graph, removed=removed)
            small, removed = apply(small, step.plan), step.removed
            fine_tune(small)
    """
    gone = np.zeros(original.n_units, dtype=bool) if removed is None else removed
    before = original.plan(gone)
    mismatch = before.result.first_mismatch(scores.graph.signature)
    if mismatch is not None:
        raise BudgetError(
            f"the scored model is not what `removed` leaves of `original`: {mismatch}; give those that the "
            "steps of this model started from"
        )
    now, then = _correspondence(original, gone, scores.graph)
    # A unit of either graph may meet several of the other where coupling changed: sums and means
    # are taken over distinct pairs.
    total = np.bincount(then, weights=scores.values[now], minlength=original.n_units)
    times = np.bincount(then, minlength=original.n_units)
    missing = ~gone & (times == 0) & _may_go(original, gone)
    held = dict.fromkeys(np.unique(original.group_of[missing]).tolist(), _HELD)
    values = np.divide(total, times, out=np.zeros(original.n_units), where=times > 0)
    after = budget.choose(replace(scores, graph=original, values=values), removed=gone, held=held)
    return Step(after, original.plan(after).since(before))


def _correspondence(original: Graph, gone: Mask, now: Graph) -> tuple[UnitArray, UnitArray]:
    """Distinct pairs (unit of `now`, unit of `original`) that hold the same site."""
    before = {(axis.tensor, axis.axis): axis for axis in original.axes}
    pairs = [np.empty((2, 0), dtype=np.int64)]
    for axis, kept in _matched(before, gone, now):
        for mine, theirs in _factors(axis.units, kept):
            both = (mine != PINNED) & (theirs != PINNED)
            pairs.append(np.stack([mine[both], theirs[both]]))
    distinct = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return distinct[0], distinct[1]


def _may_go(original: Graph, gone: Mask) -> Mask:
    """The units [n_units] of groups that could lose a rank more.

    The last head is no unit of the present graph, where its dims are all there is.
    """
    may = np.ones(original.n_units, dtype=bool)
    for group in original.groups:
        if int(gone[group.cells[0]].sum()) >= group.size - 1:
            may[np.concatenate(group.cells)] = False
    return may


def _matched(before: dict[tuple[str, int], Axis], gone: Mask, now: Graph) -> Iterator[tuple[Axis, UnitArray]]:
    """Each axis of `now` with the original units of the channels it still has.

    Left out are axes that one of the graphs counts over blocks: those of grouped convolutions with one
    channel left for each group.
    """
    padded = np.append(gone, False)  # so that PINNED (-1) reads False
    for axis in now.axes:
        original = before.get((axis.tensor, axis.axis))
        if original is not None and original.blocks == axis.blocks:
            yield axis, original.units[..., ~away(original.units, padded)]


def _factors(now: UnitArray, then: UnitArray) -> Iterator[tuple[UnitArray, UnitArray]]:
    """Factors of the same channels in two graphs: pairs that fall into the same sets of channels.

    A factor of which one unit is left is none any more.
    """
    if now.ndim == then.ndim == 1:
        yield now, then
        return
    for mine in np.atleast_2d(now):
        for theirs in np.atleast_2d(then):
            if np.array_equal(_sets(mine), _sets(theirs)):
                yield mine, theirs


def _sets(units: UnitArray) -> UnitArray:
    """For each channel the first one with the same unit."""
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()])
