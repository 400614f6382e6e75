"""Orders of steps that weigh scores against what the channels cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compressor.budget.ladder import Ladder
from compressor.profiling.cost import macs
from compressor.profiling.priced import Priced

__all__ = ["by_score_per_mac", "score_per_cost"]


def by_score_per_mac(ladder: Ladder) -> Sequence[npt.NDArray[np.float64]]:
    """For each group the key of every step: the score of the ranks that go with it, for each MAC they free.

    For scores that are losses and add up, such as `ReconstructionError` or `Taylor`: what costs least for
    what it saves goes first, `Macs(0.5, order=by_score_per_mac)`. A rank's MACs are those of its group in the
    model as it is, shared by the group's ranks.

    >>> import torch, compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> scores = cp.score(cp.capture(net, torch.ones(1, 4)), cp.scoring.Norm())
    >>> print(cp.plan(scores, cp.budget.Macs(0.5, order=cp.budget.by_score_per_mac)).summary())
    layer          writes           reads
    0              8 -> 4               -
    2                   -          8 -> 4
    """
    return score_per_cost(ladder, macs(ladder.graph))


def score_per_cost(ladder: Ladder, cost: Priced) -> Sequence[npt.NDArray[np.float64]]:
    """For each group the key of every step: the score of the ranks that go, for what they free of `cost`.

    What a rank frees is its share of what its group can free in the model as it is.
    """
    at = cost.along(ladder.order)
    whole = np.zeros(len(ladder.order), dtype=np.int64)
    keys = []
    for group, (scores, allowance) in enumerate(zip(ladder.scores, ladder.allowances, strict=True)):
        lost = whole.copy()
        lost[group] = last = allowance.levels[-1]
        freed = (at(whole).item() - at(lost).item()) / max(int(last), 1)
        # What frees nothing goes last, whatever its score.
        levels = allowance.levels[1:]
        keys.append(scores[levels - 1] / freed if freed > 0 else np.full(len(levels), np.inf))
    return keys
