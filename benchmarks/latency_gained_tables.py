"""The tables of latency gained: every cut of a network, its MACs, its speed-ups, its accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.latency_cuts import BASE
from benchmarks.results import Table

__all__ = ["tables"]

Row = Mapping[str, Any]
_RUNTIMES = ("default", "extended", "eager")
_COLUMNS = (
    *("cut", "MACs left", "parameters left", "promised", "onnxruntime", "extended", "PyTorch"),
    *("as cut %", "norms anew %", "note"),
)


def tables(rows: Sequence[Row]) -> list[Table]:
    """A table for each network and fraction."""
    return [_table(row) for row in rows if row["measured"]]


def _table(row: Row) -> Table:
    title = f"{row['network']}, {100 * (1 - row['fraction']):.0f} % of the MACs removed"
    notes = (
        f"Speed-ups against the network that is not pruned: medians of the ratios of {row['rounds']} "
        "interleaved rounds (10-90 %), CPU time of one thread, batch 1. onnxruntime: its default "
        "optimisation; extended: without blocks of 16 channels, as on ARM; PyTorch: eager. Widths and order "
        "come from a table of the default, which promised so much. `ours, latency` removes that share of the "
        "latency, not of the MACs. " + _WEIGHTS[row["weights"]],
        *(f"{name} skipped: {why}" for name, why in row["skipped"].items()),
    )
    return Table(title, _COLUMNS, tuple(_cells(row, name) for name in row["cuts"]), notes, (0, -1))


_WEIGHTS = {
    "trained": "Accuracy of 1,000 test images; norms measured anew on 256 unlabelled ones, nothing trained.",
    "random": "The weights are random, so layers are thinned alike; time does not depend on them.",
}


def _cells(row: Row, name: str) -> tuple[str, ...]:
    facts, base = row["cuts"][name], row["cuts"][BASE]
    if "failure" in facts:
        return (name, *["-"] * (len(_COLUMNS) - 2), facts["failure"])
    accuracy = row["measured"].get("accuracy", {}).get(name, {})
    return (
        name,
        f"{facts['macs'] / base['macs']:.3f}",
        f"{facts['params'] / base['params']:.3f}",
        f"{facts['promised']:.2f}x" if "promised" in facts else "-",
        *(_speedup(row, runtime, name) for runtime in _RUNTIMES),
        *(f"{100 * accuracy[stage]:.1f}" if accuracy else "-" for stage in ("as_cut", "norms")),
        "",
    )


def _speedup(row: Row, runtime: str, name: str) -> str:
    found = row["measured"].get(runtime, {}).get(name)
    if found is None:
        return "-"
    return f"{found['speedup']:.2f}x ({found['speedup_p10']:.2f}-{found['speedup_p90']:.2f})"
