"""What the filters are like, before and after: medians, what stands out, and layer by layer."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from compressor.filters import FilterReport, LayerDrifts, compare
from compressor.filters.findings import CAVEAT
from compressor.filters.report_layers import LayerReport
from compressor.reporting.blocks import Block, Folded, Table, Text
from compressor.reporting.case import Case
from compressor.reporting.document import Section

__all__ = ["filters"]


@dataclass(frozen=True)
class _Measure:
    """A number of a layer in words, None where it is not defined, and how it is printed."""

    words: str
    of: Callable[[LayerReport], float | None]
    format: str = "{:.3f}"

    def cell(self, layers: Iterable[LayerReport]) -> str:
        """The median over the layers that have one."""
        found = [value for layer in layers if (value := self.of(layer)) is not None]
        return self.format.format(statistics.median(found)) if found else "-"


_MEASURES = (
    _Measure("sparsity S", lambda layer: layer.quality.sparsity),
    _Measure("diversity H/T_H (1: random)", lambda layer: layer.entropy_ratio),
    _Measure("shapes, 10^H", lambda layer: layer.effective_shapes, "{:.1f}"),
    _Measure("orthogonality", lambda layer: layer.quality.orthogonality),
    _Measure("largest |cos|", lambda layer: layer.largest_cosine, "{:.2f}"),
)


def filters(case: Case) -> Section | None:
    """Both reports side by side, and how far the kernels of each layer have moved."""
    if case.filters is None:
        return None
    before, after = case.filters
    rows: list[tuple[str, ...]] = [
        (f"{measure.words}, median", measure.cell(before.layers), measure.cell(after.layers))
        for measure in _MEASURES
    ]
    for words, count in _COUNTS:
        rows.append((words, *(f"{sum(map(count, found.layers)):,}" for found in (before, after))))
    drifts = _drifts(before, after)
    found = [str(finding) for finding in after.findings] or ["Nothing stands out."]
    blocks: tuple[Block, ...] = (
        Text(f"Convolutions: {len(before.layers)} before, {len(after.layers)} after.", soft=True),
        Table(("", "before", "after"), tuple(rows)),
        Text("What stands out after the cut:"),
        *(Text(text) for text in found),
        Text(CAVEAT, soft=True),
        *([] if drifts is None else [Text(_moved(drifts))]),
        Folded("Layer by layer", (_by_layer(before, after, drifts),)),
    )
    data = {
        "before": before.to_dict(),
        "after": after.to_dict(),
        "drift": {row.name: None if row.drift is None else row.drift.value for row in drifts or ()},
    }
    return Section("filters", "Filters before and after", blocks, data)


_COUNTS: tuple[tuple[str, Callable[[LayerReport], int]], ...] = (
    ("dead filters", lambda layer: len(layer.quality.dead_filters)),
    ("input channels that no filter looks at", lambda layer: len(layer.quality.dead_channels)),
    ("pairs of about parallel filters", lambda layer: layer.quality.duplicates.count),
)


def _drifts(before: FilterReport, after: FilterReport) -> LayerDrifts | None:
    """How far kernels moved; None where a name stands for several layers, which cannot be told apart."""
    sides = [[layer.bank for layer in found.layers] for found in (before, after)]
    if any(max(Counter(bank.name for bank in side).values()) > 1 for side in sides):
        return None
    return compare(*sides)


def _moved(drifts: LayerDrifts) -> str:
    above = [row.name for row in drifts.compared if row.drift is not None and row.drift.above_noise]
    listed = f": {', '.join(above[:6])}{', ...' if len(above) > 6 else ''}" if above else ""
    return (
        f"Kernels are distributed as before, within noise, in {len(drifts.compared) - len(above)} of "
        f"{len(drifts.compared)} layers that can be compared; otherwise in {len(above)}{listed}."
    )


def _by_layer(before: FilterReport, after: FilterReport, drifts: LayerDrifts | None) -> Table:
    head = ("layer", *(measure.words.split(",")[0] for measure in _MEASURES), "dead", "D", "noise")
    old = {layer.bank.name: layer for layer in before.layers}
    moved = {row.name: row.drift for row in drifts or ()}
    rows = []
    for layer in after.layers:
        first = [old[layer.bank.name]] if layer.bank.name in old else []
        drift = moved.get(layer.bank.name)
        cells = [f"{measure.cell(first)} → {measure.cell([layer])}" for measure in _MEASURES]
        dead = [str(len(each.quality.dead_filters)) for each in (*first, layer)]
        far = ("-", "-") if drift is None else (f"{drift.value:.4f}", f"{drift.noise.high:.4f}")
        rows.append((layer.bank.name, *cells, " → ".join(dead), *far))
    return Table(head, tuple(rows))
