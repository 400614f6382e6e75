"""Choosing among the steps of a ladder: the two searches that budgets share, exact to one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.budget.ladder import Lost, Steps

__all__ = ["at_most", "fewest"]


def fewest(steps: Steps, start: Lost, cost: Callable[[Lost], npt.NDArray[Any]], target: float) -> Lost | None:
    """The ranks lost [n_groups] after as few steps as bring the cost to `target`; None if none do.

    The shortest prefix of the steps that suffices, found by bisection. Its last step usually
    overshoots, so steps are handed back, the last taken first, wherever the target still holds: in
    the result no group can have its last step back.
    """
    if cost(steps.taken(len(steps), start)) > target:
        return None
    low, high = 0, len(steps)  # `high` steps always suffice
    while low < high:
        middle = (low + high) // 2
        if cost(steps.taken(middle, start)) <= target:
            high = middle
        else:
            low = middle + 1
    lost = steps.taken(high, start)
    closed = np.zeros(len(lost), dtype=bool)
    for index in range(high - 1, -1, -1):
        group = steps.group[index]
        if closed[group]:
            continue
        lost[group] = steps.below[index]
        if cost(lost) > target:
            lost[group] = steps.level[index]
            closed[group] = True  # handing back elsewhere only makes it dearer
            if closed.all():
                break
    return lost


def at_most(steps: Steps, start: Lost, kept: Callable[[Lost], npt.NDArray[Any]], least: int) -> Lost:
    """The ranks lost [n_groups] after as many steps as leave at least `least` of what `kept` counts.

    Steps are taken in order; a step that does not fit closes its group, and the others go on.
    """
    low, high = 0, len(steps)  # `low` steps fit, or none do
    while low < high:
        middle = (low + high + 1) // 2
        if kept(steps.taken(middle, start)) >= least:
            low = middle
        else:
            high = middle - 1
    lost = steps.taken(low, start)
    closed = np.zeros(len(lost), dtype=bool)
    for index in range(low, len(steps)):
        group = steps.group[index]
        if closed[group]:
            continue
        lost[group] = steps.level[index]
        if kept(lost) < least:
            lost[group] = steps.below[index]
            closed[group] = True
            if closed.all():
                break
    return lost
