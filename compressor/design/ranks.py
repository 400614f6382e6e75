"""How many channels each group needs by its spectra: the effective rank of what its layers write."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.budget import Ladder
from compressor.core.graph import Graph
from compressor.design.measures import ParticipationRatio, SpectralMeasure
from compressor.design.spectra import FilterSpectra, Spectra
from compressor.errors import InputError

__all__ = ["GroupRank", "SpectralRanks", "WriterRank", "keys_by_rank"]

# A group without any live filter loses its channels before all others.
_NOTHING = 1e-12


@dataclass(frozen=True)
class WriterRank:
    """The effective rank of the channels of a group that one layer writes; `dead` of `rows` are dead."""

    tensor: str
    rank: float
    rows: int
    dead: int


@dataclass(frozen=True)
class GroupRank:
    """The effective rank of a group of `size` ranks, from its `writers`; `size` where none has a spectrum."""

    group: str
    size: int
    rank: float
    writers: tuple[WriterRank, ...]

    @property
    def is_measured(self) -> bool:
        """Whether any layer that writes the group has a spectrum."""
        return bool(self.writers)


@dataclass(frozen=True, repr=False)
class SpectralRanks:
    """The effective rank of every group, and the order of steps that thins groups in proportion to it.

    As an `order` of a budget it makes widths proportional to effective ranks: the next channel always goes
    where most channels are left for each direction. `Macs(0.5, order=SpectralRanks())` leaves at most half of
    the MACs, exact to one channel of a layer; which channels go within a layer the scores say.

    All layers that write one residual stream have one width. `reconcile` makes one rank of theirs: by default
    `max`, so that each finds its directions; `statistics.fmean` is the usual other. So are the cells of a
    grouped convolution. Groups without a spectrum (see `FilterSpectra`) count as in full use.

    Of k factors of the same channels (heads times dims) each keeps the k-th root of what others keep.

    >>> import torch, compressor as cp
    >>> from compressor.design import SpectralRanks
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
    >>> _ = torch.nn.init.ones_(net[0].weight)
    >>> [found] = SpectralRanks().of(cp.capture(net, torch.ones(1, 1, 8, 8)))
    >>> found.group, found.size, round(found.rank, 6)
    ('0.weight', 8, 1.0)
    """

    measure: SpectralMeasure = field(default_factory=ParticipationRatio)
    _: KW_ONLY
    spectra: Spectra = field(default_factory=FilterSpectra)
    reconcile: Callable[[Sequence[float]], float] = max

    def __post_init__(self) -> None:
        if isinstance(self.measure, type) or not callable(self.measure):
            raise InputError(
                f"SpectralRanks(measure) is a function of a spectrum such as ParticipationRatio(), got "
                f"{self.measure!r}"
            )
        if not isinstance(self.spectra, Spectra):
            raise InputError(
                f"SpectralRanks(spectra=...) is FilterSpectra() or ActivationSpectra(batches), got "
                f"{self.spectra!r}"
            )

    def __repr__(self) -> str:
        shown = [] if self.measure == ParticipationRatio() else [repr(self.measure)]
        if repr(self.spectra) != repr(FilterSpectra()):
            shown.append(f"spectra={self.spectra!r}")
        if self.reconcile is not max:
            shown.append(f"reconcile={getattr(self.reconcile, '__name__', repr(self.reconcile))}")
        return f"SpectralRanks({', '.join(shown)})"

    def of(self, graph: Graph) -> tuple[GroupRank, ...]:
        """The effective rank of each group of a graph."""
        written: dict[int, list[WriterRank]] = {}
        for found in self.spectra.of(graph):
            rank = min(self._number(self.measure, found.spectrum), float(found.alive))
            own = WriterRank(found.tensor, rank, found.rows, found.rows - found.alive)
            written.setdefault(found.group, []).append(own)
        return tuple(
            self._of_group(group.name, group.size, written.get(position, []))
            for position, group in enumerate(graph.groups)
        )

    def __call__(self, ladder: Ladder) -> Sequence[npt.NDArray[np.float64]]:
        """For each group the key of every step, see `keys_by_rank`: what an `order` of a budget returns."""
        return keys_by_rank(ladder, self.of(ladder.graph))

    def _number(self, rule: Callable[[Any], float], values: Any) -> float:
        rank = float(rule(values))
        if not 0 <= rank < math.inf:
            raise InputError(f"{rule!r} gives {rank}, and a rank is a finite number that is not negative")
        return rank

    def _of_group(self, name: str, size: int, writers: list[WriterRank]) -> GroupRank:
        ranks = [writer.rank for writer in writers]
        rank = self._number(self.reconcile, ranks) if writers else float(size)
        return GroupRank(name, size, min(rank, float(size)), tuple(writers))


def keys_by_rank(ladder: Ladder, ranks: Sequence[GroupRank]) -> list[npt.NDArray[np.float64]]:
    """For each group the key of every step: minus the channels left after it for each direction."""
    keys = []
    for allowance, many, group in zip(ladder.allowances, ladder.factors.tolist(), ranks, strict=True):
        left = 1 - allowance.levels[1:] / group.size
        keys.append(-(left**many) / max(group.rank / group.size, _NOTHING))
    return keys
