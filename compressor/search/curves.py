"""How much a model's quality falls when one group alone is cut: curves by group, as a value."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.budget.numbers import exact
from compressor.core.graph import Graph
from compressor.errors import FileError, InputError
from compressor.search.files import load_json, write_json
from compressor.tables import aligned

__all__ = ["Curve", "Sensitivity", "check_drop", "labels", "ranks"]

_FORMAT = "compressor-sensitivity"


@dataclass(frozen=True)
class Curve:
    """One group alone: after `lost` ranks [n] of its `size`, ascending, the model has `quality` [n].

    `macs` [n] are those of the whole model then.
    """

    group: str
    size: int
    lost: tuple[int, ...]
    quality: tuple[float, ...]
    macs: tuple[int, ...]

    def drops(self, whole: float) -> npt.NDArray[np.float64]:
        """The predicted drop from the quality `whole` after 0 … lost[-1] ranks, in straight lines.

        It never falls: a cut is never predicted to be better than a smaller one, whatever noise says.

        >>> Curve("conv", 8, (2, 4), (0.9, 0.95), (10, 5)).drops(1.0).tolist()
        [0.0, 0.04..., 0.09..., 0.09..., 0.09...]
        """
        fallen = np.maximum.accumulate([0.0, *(whole - np.array(self.quality))])
        return np.interp(np.arange(self.lost[-1] + 1 if self.lost else 1), [0, *self.lost], fallen)

    def within(self, whole: float, max_drop: float) -> int:
        """The most ranks that were measured to go for at most `max_drop`, no smaller cut costing more."""
        fallen = np.maximum.accumulate([0.0, *(whole - np.array(self.quality))])
        return (0, *self.lost)[int(np.searchsorted(fallen, max_drop, side="right")) - 1]


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """The curves of a model's groups, and what they were measured with.

    `quality` and `macs` are those of the whole model, `ratios` those that were asked for, `scorer` says
    which channels of a group go first, `evaluation` what quality is. Groups that share a name (heads and
    dims of one projection) are told apart by `#2`.

    >>> curve = Curve("conv1.weight", 8, (4,), (0.9,), (60,))
    >>> print(Sensitivity("Net", "0f", "Norm()", "accuracy", 0, 0.95, 100, (0.5,), (curve,)))
    Net: accuracy 0.95; what it falls by when one group loses a ratio of its channels (Norm())
    group         ranks    0.5  freed
    conv1.weight      8  0.050    40%
    """

    model: str
    weights: str
    scorer: str
    evaluation: str
    seed: int
    quality: float
    macs: int
    ratios: tuple[float, ...]
    curves: tuple[Curve, ...]

    def __repr__(self) -> str:
        return f"Sensitivity({self.model}: {self.evaluation}, {len(self.curves)} groups)"

    def __str__(self) -> str:
        head = (
            f"{self.model}: {self.evaluation} {self.quality:.4g}; what it falls by when one group loses a "
            f"ratio of its channels ({self.scorer})"
        )
        rows = [["group", "ranks", *(f"{ratio:g}" for ratio in self.ratios), "freed"]]
        for curve, drops in zip(self.curves, self.table().tolist(), strict=True):
            cells = ["-" if math.isnan(drop) else f"{drop + 0.0:.3f}" for drop in drops]
            freed = f"{1 - curve.macs[-1] / self.macs:.0%}" if curve.macs and self.macs else "-"
            rows.append([curve.group, str(curve.size), *cells, freed])
        return "\n".join([head, *aligned(rows)])

    def table(self) -> npt.NDArray[np.float64]:
        """What the quality falls by [n_groups, n_ratios]; NaN where a ratio is less than one rank."""
        falls = [{0: float("nan")} for _ in self.curves]
        for own, curve in zip(falls, self.curves, strict=True):
            own.update((n, self.quality - q) for n, q in zip(curve.lost, curve.quality, strict=True))
        rows = [
            [own[ranks(ratio, curve.size)] for ratio in self.ratios]
            for own, curve in zip(falls, self.curves, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(self.curves), len(self.ratios))

    def tolerated(self, *, max_drop: float) -> dict[str, float]:
        """For each group the largest measured ratio it alone can lose for a drop of at most `max_drop`.

        As limits: `Macs(0.5, max_ratio=...)` takes those above 0; `MaxDrop` cuts all groups at once.
        """
        check_drop(max_drop)
        return {curve.group: curve.within(self.quality, max_drop) / curve.size for curve in self.curves}

    def freed_per_drop(self, *, max_drop: float) -> dict[str, float]:
        """For each group the MACs it frees at its tolerated ratio, for each unit of the drop measured there.

        Infinite where it costs nothing; groups that tolerate no cut are left out. The most worthwhile first.
        """
        check_drop(max_drop)
        found: dict[str, float] = {}
        for curve in self.curves:
            lost = curve.within(self.quality, max_drop)
            if lost:
                freed = self.macs - dict(zip(curve.lost, curve.macs, strict=True))[lost]
                drop = float(curve.drops(self.quality)[lost])
                found[curve.group] = freed / drop if drop > 0 else float("inf")
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def drops_of(self, graph: Graph) -> list[npt.NDArray[np.float64]]:
        """For each group of the graph its predicted drops, see `Curve.drops`; [0] for those not measured.

        Raises InputError for a graph of another model.
        """
        names = labels(graph)
        sizes = {name: group.size for name, group in zip(names, graph.groups, strict=True)}
        for curve in self.curves:
            if sizes.get(curve.group) != curve.size:
                found = "no such group" if curve.group not in sizes else f"{sizes[curve.group]} ranks"
                raise InputError(
                    f"the sensitivity is of a {self.model} with {curve.size} ranks in {curve.group}, this "
                    f"{graph.signature.model} has {found}; measure this model"
                )
        known = {curve.group: curve.drops(self.quality) for curve in self.curves}
        return [known.get(name, np.zeros(1)) for name in names]

    def to_dict(self) -> dict[str, Any]:
        """The value as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sensitivity:
        """The value of `to_dict`; raises FileError where the data is none."""
        try:
            curves = tuple(
                Curve(
                    str(each["group"]),
                    int(each["size"]),
                    tuple(map(int, each["lost"])),
                    tuple(map(float, each["quality"])),
                    tuple(map(int, each["macs"])),
                )
                for each in data["curves"]
            )
            return cls(
                model=str(data["model"]),
                weights=str(data["weights"]),
                scorer=str(data["scorer"]),
                evaluation=str(data["evaluation"]),
                seed=int(data["seed"]),
                quality=float(data["quality"]),
                macs=int(data["macs"]),
                ratios=tuple(map(float, data["ratios"])),
                curves=curves,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FileError(f"the data is no sensitivity: {error!r}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a JSON file; raises FileError where that is not possible."""
        write_json(path, _FORMAT, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sensitivity:
        """What `save` wrote; raises FileError for anything else."""
        return load_json(path, _FORMAT, cls.from_dict)


def labels(graph: Graph) -> tuple[str, ...]:
    """A name for each group of the graph: its own, and `#2`, `#3` … where an earlier one has it."""
    names = [group.name for group in graph.groups]
    count = [names[:position].count(name) for position, name in enumerate(names)]
    return tuple(f"{name}#{n + 1}" if n else name for name, n in zip(names, count, strict=True))


def ranks(ratio: float, size: int) -> int:
    """How many of `size` ranks a ratio removes, rounded so that more stays; one stays in any case."""
    return min(int(exact(ratio) * size), size - 1)


def check_drop(max_drop: object) -> None:
    """Raise InputError unless `max_drop` is a number >= 0."""
    if isinstance(max_drop, bool) or not isinstance(max_drop, int | float) or not 0 <= max_drop < np.inf:
        raise InputError(f"max_drop = {max_drop!r}: what the quality may fall by, a number >= 0, is expected")
