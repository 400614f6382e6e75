"""Which group loses how much: the least sum of predicted drops that brings every cost down to its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.budget.bounds import Bound, unmet
from compressor.budget.ladder import Lost

__all__ = ["Allocation"]

Floats = npt.NDArray[np.float64]
_GRID = 24  # levels of a group that are looked at in one go
_EXCHANGES = 400
_FEW = 8  # groups, of which each is also tried whole to begin with
_NOISE = 1e-12  # two sums of the same drops in another order


@dataclass(frozen=True, eq=False)
class Allocation:
    """A knapsack whose costs do not add up: what a group frees depends on what its neighbours lost.

    `levels[g]` are the ranks that group g may lose, ascending, `drops[g]` the drop at each of them. All
    costs are exact, `bounds` at any candidate. `least` goes three steps: (1) greedily, the change of one
    group to any of its levels that has the least drop for what it takes off the costs that are too high;
    (2) levels are given back, the dearest drop first, where all bounds still hold; (3) one group gives back
    and another loses more, as long as the sum falls. Steps 2 and 3 start from all groups at their last
    levels, too, from all thinned alike, and of up to 8 groups from all but one thinned alike; the best of
    these ends is taken. At most 24 levels of a group are looked at in a step, evenly spread.

    No change of one group improves the result and no exchange of two. It need not be the optimum, which is
    NP-hard to find: of 8,000 random cases of three groups and two bounds, with drops that grow with the root
    of the ranks, in proportion, or with their square, all but 4 results were, the worst 12 % above.
    """

    levels: tuple[Lost, ...]
    drops: tuple[Floats, ...]
    bounds: tuple[Bound, ...]

    @classmethod
    def of(cls, levels: Sequence[Lost], drops: Sequence[Floats], bounds: Sequence[Bound]) -> Allocation:
        """From `drops[g]` at 0, 1, 2 … ranks; beyond its end the last one holds."""
        own = [fallen[np.minimum(at, len(fallen) - 1)] for at, fallen in zip(levels, drops, strict=True)]
        return cls(tuple(levels), tuple(own), tuple(bounds))

    def least(self) -> Lost | None:
        """The ranks lost [n_groups]; None where the last levels of all groups do not meet the bounds."""
        last = np.array([len(levels) - 1 for levels in self.levels], dtype=np.int64)
        if self._unmet(last):
            return None
        at = np.zeros_like(last)
        while self._unmet(at):
            at = self._greedy(at)
        whole = range(len(last)) if len(last) <= _FEW else ()
        starts = [at, last, self._thinned(last), *(self._thinned(last, whole=group) for group in whole)]
        return self._lost(min(map(self._improved, starts), key=self._drop))

    def _thinned(self, last: Lost, *, whole: int | None = None) -> Lost:
        """All groups at the least share of their levels that meets the bounds; one may stay whole."""
        for share in np.linspace(0, 1, _GRID + 1):
            at: Lost = np.ceil(share * last).astype(np.int64)
            if whole is not None:
                at[whole] = 0
            if not self._unmet(at):
                return at
        return last

    def _improved(self, at: Lost) -> Lost:
        """`at`, which meets the bounds, after all that can be given back or exchanged."""
        at = self._given_back(at)
        for _ in range(_EXCHANGES):
            better = self._exchanged(at)
            if better is None:
                break
            at = self._given_back(better)
        return at

    def _drop(self, at: Lost) -> float:
        return sum(float(own[i]) for own, i in zip(self.drops, at.tolist(), strict=True))

    def _greedy(self, at: Lost) -> Lost:
        """`at` after the change of one group that costs least for what it takes off."""
        moves = self._moves(at)
        candidates = _moved(at, moves)
        freed = np.zeros(len(candidates))
        for bound in self.bounds:
            now = float(bound.at(self._lost(at)))
            excess = now - bound.target
            if excess > 0:
                then = bound.at(self._lost(candidates)).astype(np.float64)
                freed += np.minimum(now - then, excess) / bound.whole
        useful = freed > 0
        if useful.any():
            price = np.divide(moves.dearer, freed, out=np.full(len(freed), np.inf), where=useful)
            best = np.lexsort((-freed, price))[0]
        else:
            # A peak in two places falls only when both do.
            best = np.lexsort(((candidates - at).sum(axis=1), moves.dearer))[0]
        chosen: Lost = candidates[best]
        return chosen

    def _given_back(self, at: Lost) -> Lost:
        """`at` with every group as low as the bounds allow, those first whose drop falls most."""
        while True:
            lower = {g: self._lowest(at, g) for g in range(len(at)) if at[g]}
            gains = {g: self.drops[g][at[g]] - self.drops[g][i] for g, i in lower.items() if i < at[g]}
            if not gains:
                return at
            # What saves no drop saves channels.
            group = max(gains, key=lambda g: (gains[g], at[g] - lower[g]))
            at = at.copy()
            at[group] = lower[group]

    def _lowest(self, at: Lost, group: int) -> int:
        """The lowest position of a group at which the bounds hold, all others as they are."""
        trial = at.copy()
        low, high = 0, int(at[group])
        while low < high:
            trial[group] = middle = (low + high) // 2
            if self._unmet(trial):
                low = middle + 1
            else:
                high = middle
        return low

    def _exchanged(self, at: Lost) -> Lost | None:
        """The best of all pairs of one group that gives back and another that loses more; None: none is."""
        best, least = None, -_NOISE
        moves = self._moves(at)
        for group in np.flatnonzero(at).tolist():
            for lower in _grid(0, int(at[group]) - 1):
                change = moves.dearer + self.drops[group][lower] - self.drops[group][at[group]]
                cheaper = np.flatnonzero((change < least) & (moves.group != group))
                if not len(cheaper):
                    continue
                eased = at.copy()
                eased[group] = lower
                cheaper = cheaper[np.argsort(change[cheaper], kind="stable")]
                candidates = _moved(eased, moves.some(cheaper))
                holding = np.flatnonzero(self._unmet(candidates) == 0)
                if len(holding):
                    best, least = candidates[holding[0]], float(change[cheaper[holding[0]]])
        return best

    def _moves(self, at: Lost) -> _Moves:
        """One group at one of its higher positions, for all groups and positions that are looked at."""
        found = [
            (group, position, self.drops[group][position] - self.drops[group][at[group]])
            for group, levels in enumerate(self.levels)
            for position in _grid(int(at[group]) + 1, len(levels) - 1)
        ]
        columns = zip(*found, strict=True) if found else ((), (), ())
        group, position, dearer = (np.array(column) for column in columns)
        return _Moves(group.astype(np.int64), position.astype(np.int64), dearer.astype(np.float64))

    def _lost(self, at: Lost) -> Lost:
        """The ranks lost [..., n_groups] at positions [..., n_groups]."""
        columns = [levels[at[..., group]] for group, levels in enumerate(self.levels)]
        return np.stack(columns, axis=-1)

    def _unmet(self, at: Lost) -> npt.NDArray[np.int64]:
        return unmet(self.bounds, self._lost(at))


@dataclass(frozen=True, eq=False)
class _Moves:
    """Changes [n] of one group each: to which position it goes, and by how much its drop grows."""

    group: Lost
    position: Lost
    dearer: Floats

    def some(self, which: Lost) -> _Moves:
        return _Moves(self.group[which], self.position[which], self.dearer[which])


def _moved(at: Lost, moves: _Moves) -> Lost:
    """`at` after each of the changes [n, n_groups]."""
    found = np.repeat(at[None], len(moves.group), axis=0)
    found[np.arange(len(found)), moves.group] = moves.position
    return found


def _grid(first: int, last: int) -> list[int]:
    """The whole numbers from first to last, both included, or evenly spread ones where they are many."""
    count = last - first + 1
    if count <= _GRID:
        return list(range(first, last + 1))
    return sorted(set(np.linspace(first, last, _GRID).round().astype(int).tolist()))
