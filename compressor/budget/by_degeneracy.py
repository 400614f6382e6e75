"""An order of steps in which degenerate layers lose more: dead filters first, then in proportion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import numpy.typing as npt

from compressor.budget.ladder import Ladder
from compressor.budget.numbers import check_part
from compressor.scoring.degeneracy import degeneracies

__all__ = ["ByDegeneracy"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ByDegeneracy:
    """An `order` that removes more of those groups whose layers are more degenerate.

    `Macs(0.5, order=ByDegeneracy())` removes λ · w of every group, with the one λ that meets the fraction
    and w = healthy + (1 − healthy) · share, where `share` is that of `scoring.degeneracies`: many sparse
    kernels or few kernel shapes. With `healthy` = 0 ratios are in proportion to the share, which takes most
    of some layers; with 1 all groups are thinned alike, as by `by_ratio`. Scores decide within a group. Ranks
    that are dead go before everything else, as far as the scores put them first: `FilterQuality` does, and
    `Product` with its terms ("live", "read") brings any other scorer to it. Layers that look random are named
    by `scoring.degeneracies(graph).random`; here they count as healthy.

    Of k factors of the same channels each keeps the k-th root of what others keep. In gradual pruning the
    layers are judged as they are in the original model.

    *Source: the library's own; for what S, H and T_H are see `scoring.degeneracies`.* What it is worth is
    measured in benchmarks/results/filter_quality.md.

    >>> import torch, compressor as cp
    >>> net = torch.nn.Sequential(*(torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
    >>> net[1].weight.data[:] = net[1].weight.data[:1, :1].clone()  # one shape of kernel
    >>> scores = cp.score(cp.capture(net, torch.ones(1, 8, 9, 9)), cp.scoring.Norm())
    >>> print(cp.plan(scores, cp.budget.Macs(0.5, order=ByDegeneracy(healthy=0.1))).summary())
    layer          writes           reads
    1              8 -> 2               -
    2                   -          8 -> 2
    """

    _: KW_ONLY
    healthy: float = 0.5
    epsilon: float = 0.01
    fold_batch_norm: bool = True

    def __post_init__(self) -> None:
        check_part("ByDegeneracy(healthy)", self.healthy, low=True, high=True)
        check_part("ByDegeneracy(epsilon)", self.epsilon, low=False, high=False)

    def __call__(self, ladder: Ladder) -> Sequence[Floats]:
        """For each group the key of every step."""
        found = degeneracies(ladder.graph, epsilon=self.epsilon, fold_batch_norm=self.fold_batch_norm)
        keys = []
        for position, allowance in enumerate(ladder.allowances):
            levels, many = allowance.levels[1:], ladder.factors[position]
            removed = 1 - (1 - levels / ladder.sizes[position]) ** many
            weight = self.healthy + (1 - self.healthy) * found.groups[position].share
            with np.errstate(divide="ignore"):
                key = removed / weight
            dead_ranks = np.logical_and.accumulate(found.dead[ladder.order[position]].all(axis=0))
            keys.append(np.where(levels <= dead_ranks.sum(), removed - 1, key))
        return keys
