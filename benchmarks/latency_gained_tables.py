"""The tables of latency gained: every cut of a network, its MACs, its speed-ups, its accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.latency_cuts import BASE
from benchmarks.results import Table

__all__ = ["tables"]

Row = Mapping[str, Any]
_RUNTIMES = {"default": "onnxruntime", "extended": "onnxruntime, extended", "eager": "PyTorch"}
_COLUMNS = (
    *("cut", "MACs left", "parameters left", "promised", "onnxruntime", "extended", "PyTorch"),
    *("as cut %", "norms anew %", "note"),
)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Who is faster, and a table for each network and fraction."""
    measured = [row for row in rows if row["measured"]]
    return [_beside(measured), *map(_table, measured)] if measured else []


def _beside(rows: Sequence[Row]) -> Table:
    columns = (
        *("network", "MACs", "runtime", "torch-pruning", "speed-up", "accuracy %"),
        *("ours", "speed-up", "accuracy %", "ours / theirs"),
    )
    lines = []
    for row in rows:
        for runtime, words in _RUNTIMES.items():
            found = row["measured"].get(runtime)
            if found is None:
                continue
            theirs = max((name for name in found if name.startswith("torch")), key=_speed_in(found))
            ours = max(_as_accurate(row, theirs), key=_speed_in(found), default=None)
            mine = ("-", "-", "-", "-")
            if ours is not None:
                times = found[ours]["speedup"] / found[theirs]["speedup"]
                mine = (*_cut(row, runtime, ours), f"{times:.2f}")
            lines.append((row["network"], f"{row['fraction']:g}", words, *_cut(row, runtime, theirs), *mine))
    notes = (
        "The fastest cut of torch-pruning, with the MACs it leaves, and the fastest of ours within the same "
        "fraction that is no less accurate (norms anew; of random weights any). Above 1 in the last column "
        "ours is faster. The ranges are in the tables below.",
    )
    return Table("Who is faster at the same MACs", columns, tuple(lines), notes, (0, 2, 3, 6))


def _as_accurate(row: Row, peer: str) -> list[str]:
    """Our cuts of a fraction of the MACs with at least the peer's accuracy."""
    ours = [name for name in row["cuts"] if name.startswith("ours") and not name.endswith("latency")]
    if row["weights"] == "random":
        return ours
    shares = row["measured"].get("accuracy", {})
    return [name for name in ours if shares and shares[name]["norms"] >= shares[peer]["norms"]]


def _speed_in(found: Mapping[str, Any]) -> Callable[[str], float]:
    return lambda name: float(found[name]["speedup"])


def _cut(row: Row, runtime: str, name: str) -> tuple[str, str, str]:
    shares = row["measured"].get("accuracy", {}).get(name)
    left = row["cuts"][name]["macs"] / row["cuts"][BASE]["macs"]
    return (
        f"{name.removeprefix('ours, ').removeprefix('torch-pruning, ')} ({left:.3f})",
        f"{row['measured'][runtime][name]['speedup']:.2f}x",
        "-" if shares is None else f"{100 * shares['norms']:.1f}",
    )


def _table(row: Row) -> Table:
    title = f"{row['network']}, {100 * (1 - row['fraction']):.0f} % of the MACs removed"
    notes = (
        f"Speed-ups against the network that is not pruned: medians of the ratios of {row['rounds']} "
        "interleaved rounds (10-90 %), CPU time of one thread, batch 1. onnxruntime: its default "
        "optimisation; extended: without blocks of 16 channels, as on ARM; PyTorch: eager. Widths and order "
        "come from a table of the default, which promised so much. `ours, latency` removes that share of the "
        "latency, not of the MACs. " + _WEIGHTS[row["weights"]].format(**row["images"]),
        *(f"{name} skipped: {why}" for name, why in row["skipped"].items()),
    )
    return Table(title, _COLUMNS, tuple(_cells(row, name) for name in row["cuts"]), notes, (0, -1))


_WEIGHTS = {
    "trained": "Accuracy of {tested:,} test images; norms measured anew on {norms:,} unlabelled ones, "
    "nothing trained.",
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
