"""Before and after: MACs, parameters, bytes, peak memory; time and quality where they were measured."""

from __future__ import annotations

from dataclasses import asdict

from compressor.profiling import Latency
from compressor.profiling.compare import cost_rows, layer_rows
from compressor.reporting.blocks import Folded, Table, Text
from compressor.reporting.case import Case
from compressor.reporting.document import Section

__all__ = ["costs"]


def costs(case: Case) -> Section:
    """A row for each cost, and layer by layer where one opens it."""
    # Four columns fit on a phone; how many times less stands in the summary.
    rows = [*(row[:4] for row in cost_rows(case.before, case.after)), *map(_latency_row, case.latencies)]
    rows += [[name, f"{a:.4g}", f"{b:.4g}", f"{b - a:+.3g}"] for name, (a, b) in case.quality.items()]
    inputs = ", ".join(case.before.inputs) or "no tensors"
    notes = [
        f"For the whole batch of the example inputs, {inputs}. MACs are multiply-accumulates, 2 FLOPs each; "
        "peak activation bytes are the most that a runtime has to hold at once, inputs included.",
        *map(_how, case.latencies),
    ]
    if case.quality:
        listed = ", ".join(case.quality)
        notes.append(f"Measured by whoever made this report, the last column as a difference: {listed}.")
    missing = case.before.uncounted.unknown
    if missing:
        listed = ", ".join(f"{name} x{count}" for name, count in missing.items())
        notes.append(f"Not counted, for want of a rule: {listed}.")
    data = {
        "inputs": list(case.before.inputs),
        "before": case.before.to_dict()["totals"],
        "after": case.after.to_dict()["totals"],
        "latency": [asdict(found) for found in case.latencies],
        "quality": {name: {"before": a, "after": b} for name, (a, b) in case.quality.items()},
    }
    by_layer = Folded("Layer by layer", (Table.of(layer_rows(case.before, case.after), left=2),))
    blocks = (Table.of(rows), *(Text(note, soft=True) for note in notes), by_layer)
    return Section("costs", "Before and after", blocks, data)


def _latency_row(found: Latency) -> list[str]:
    before, after = found.timings
    times = f"{before.ms:.3f} ms", f"{after.ms:.3f} ms"
    return [f"time, {found.runtime}", *times, f"{1 / found.speedup:.1%}"]


def _how(found: Latency) -> str:
    timing = found.timings[1]
    return (
        f"Time of one forward pass in {found.runtime}: {found.clock}, factor {timing.speedup_p10:.2f}x to "
        f"{timing.speedup_p90:.2f}x over {found.rounds} interleaved rounds (10-90 %), on the machine that "
        "made this report."
    )
