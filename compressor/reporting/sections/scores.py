"""What channels were worth: the scores of each group, and from where on they stayed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.reporting.blocks import Folded, Table, Text
from compressor.reporting.case import Case
from compressor.reporting.document import Section
from compressor.reporting.rows import STRIP, Row, Rows, bar

__all__ = ["scores"]

_BINS = 32


def scores(case: Case) -> Section | None:
    """For each group how its scores are distributed, those of removed units apart, and the threshold."""
    if case.scores is None:
        return None
    title = "Scores and thresholds"
    if not case.groups:
        nothing = Text("No channel can be removed, so there is nothing to score.")
        return Section("scores", title, (nothing,), {"scorer": case.scores.scorer, "groups": []})
    values, removed = case.scores.values, case.removed
    units = [np.concatenate(group.cells) for group in case.graph.groups]
    found = [
        _Found(cut.name, values[own][~removed[own]], values[own][removed[own]])
        for cut, own in zip(case.groups, units, strict=True)
    ]
    note = Text(
        f"Scores ({case.scores.scorer}): larger is more worth keeping. Where a removed unit has a larger "
        "score than a kept one, limits, rounding or a cost per channel decided, or several steps with new "
        "scores for each.",
        soft=True,
    )
    key = (("kept", "units kept"), ("lost", "units removed"))
    picture = Rows(
        "scores of each group",
        tuple(each.row() for each in found),
        key,
        26,
        "From the least score of a group to its largest; the number is the least score that stayed.",
    )
    head = ("group", "units", "removed", "largest removed", "least kept")
    table = Table(head, tuple(each.cells() for each in found))
    data = {"scorer": case.scores.scorer, "groups": [each.data() for each in found]}
    folded = Folded("Thresholds of all groups", (table,), told=True)
    return Section("scores", title, (note, picture, folded), data)


@dataclass(frozen=True, eq=False)
class _Found:
    """The scores of one group: of the units that stayed, and of those that went."""

    name: str
    kept: npt.NDArray[np.float64]
    removed: npt.NDArray[np.float64]

    @property
    def least_kept(self) -> float | None:
        return float(self.kept.min()) if len(self.kept) else None

    @property
    def largest_removed(self) -> float | None:
        return float(self.removed.max()) if len(self.removed) else None

    def row(self) -> Row:
        both = np.concatenate([self.kept, self.removed])
        low, high = float(both.min()), float(both.max())
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        kept, removed = (np.histogram(part, edges)[0] for part in (self.kept, self.removed))
        most = int((kept + removed).max())
        step = 100 / _BINS
        graphic = f'<path class="axis" d="M0 {STRIP}H100"/>'
        for place, (k, r) in enumerate(zip(kept.tolist(), removed.tolist(), strict=True)):
            tall_k, tall_r = STRIP * k / most, STRIP * r / most
            at, wide = place * step + 0.15, step - 0.3
            graphic += bar("lost", at, wide, STRIP - tall_r, tall_r)
            graphic += bar("kept", at, wide, STRIP - tall_r - tall_k, tall_k)
        value = f"{len(both)} units" if not len(self.removed) else f"from {_number(self.least_kept, 3)}"
        return Row(self.name, value, graphic)

    def cells(self) -> tuple[str, ...]:
        numbers = (_number(n, 4) for n in (self.largest_removed, self.least_kept))
        return (self.name, str(len(self.kept) + len(self.removed)), str(len(self.removed)), *numbers)

    def data(self) -> dict[str, object]:
        return {
            "group": self.name,
            "units": len(self.kept) + len(self.removed),
            "removed": len(self.removed),
            "largest_removed": self.largest_removed,
            "least_kept": self.least_kept,
        }


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}g}"
