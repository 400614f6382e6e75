"""How much quality falls when one group alone is cut, and what the plan took from each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compressor.reporting.blocks import Block, Folded, Table, Text
from compressor.reporting.case import Case
from compressor.reporting.document import Section
from compressor.reporting.rows import STRIP, Row, Rows, line
from compressor.search import Curve
from compressor.search.evaluating import weights_digest

__all__ = ["sensitivity"]


def sensitivity(case: Case) -> Section | None:
    """A curve for each group on one scale, with what the plan removes of it."""
    measured = case.sensitivity
    if measured is None:
        return None
    lost = {group.name: group.ranks for group in case.groups}
    found = [_Group(curve, measured.quality, lost[curve.group]) for curve in measured.curves]
    falls = [0.0, *(fall for group in found for fall in group.falls)]
    low, high = min(falls), max(falls)
    note = (
        f"{measured.evaluation} is {measured.quality:.4g} with nothing removed, and falls where one group "
        f"alone loses channels, in the order of {measured.scorer}."
    )
    caption = (
        "From no channel removed (left) to all (right), on one scale: from "
        f"{measured.quality - low:.3g} at the top of a strip to {measured.quality - high:.3g} at its bottom, "
        "by the root of what is lost, so that small drops show beside large ones."
    )
    blocks: list[Block] = [Text(note, soft=True)]
    if measured.weights != weights_digest(case.graph.model):
        blocks.insert(
            0, Text("Measured on other weights than those of the model in this report.", warns=True)
        )
    key = (("curve", "what is left of the quality"), ("bound", "what the plan removes"))
    rows = tuple(group.row(low, high) for group in found)
    head = ("group", "ranks", "removed", "drop alone", "at most", "drop")
    table = Table(head, tuple(group.cells() for group in found))
    blocks += [
        Rows("quality by removed share of each group", rows, key, height=26, caption=caption),
        Folded("Drops of all groups", (table,), told=True),
    ]
    return Section("sensitivity", "Sensitivity", tuple(blocks), measured.to_dict())


@dataclass(frozen=True)
class _Group:
    """A curve, the quality of the whole model, and how many ranks the plan removes."""

    curve: Curve
    whole: float
    lost: int

    @property
    def falls(self) -> tuple[float, ...]:
        """What quality falls by at each measured cut."""
        return tuple(self.whole - quality for quality in self.curve.quality)

    def row(self, low: float, high: float) -> Row:
        top = _root(low)
        span = (_root(high) - top) or 1.0
        spots = zip((0, *self.curve.lost), (0.0, *self.falls), strict=True)
        points = [
            (100 * n / self.curve.size, 1 + (STRIP - 2) * (_root(fall) - top) / span) for n, fall in spots
        ]
        graphic = f'<path class="axis" d="M0 0H100M0 {STRIP}H100"/>'
        if self.lost:
            graphic += f'<path class="bound" d="M{100 * self.lost / self.curve.size:.2f} 0V{STRIP}"/>'
        last = f"{-self.falls[-1]:+.3f} at {self.curve.lost[-1]} of {self.curve.size}" if self.falls else "-"
        return Row(self.curve.group, last, graphic + line("curve", points))

    def cells(self) -> tuple[str, ...]:
        predicted = self.curve.drops(self.whole)
        alone = f"{predicted[self.lost]:.4f}" if self.lost < len(predicted) else "-"
        last = (str(self.curve.lost[-1]), f"{self.falls[-1]:.4f}") if self.falls else ("-", "-")
        return (self.curve.group, str(self.curve.size), str(self.lost), alone, *last)


def _root(fall: float) -> float:
    """The root of a drop; that of a gain is below zero."""
    return math.copysign(math.sqrt(abs(fall)), fall)
