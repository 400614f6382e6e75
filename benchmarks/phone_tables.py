"""The phone benchmark's tables: what files cost, how much less than the baseline, and MACs against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import arm64
from benchmarks.phone_files import BASE, LEVELS, aware, int8_of, plain
from benchmarks.results import Table

__all__ = ["tables"]

_SHOWN = (BASE, aware("default"), int8_of(BASE), int8_of(aware("default")))
_NAMES = dict(zip(_SHOWN, ("baseline fp32", "pruned fp32", "baseline int8", "pruned int8"), strict=True))
_GOAL = 0.8
Row = Mapping[str, Any]


def tables(rows: Sequence[Row]) -> list[Table]:
    """All tables of what has been measured so far."""
    return [_costs(rows), _ratios(rows), _macs_become_time(rows)]


# -- what the files are --------------------------------------------------------------------------


def _costs(rows: Sequence[Row]) -> Table:
    columns = (
        *("network", "file", "MACs (M)", "parameters", "file (kB)", "activations, peak (kB)"),
        *("memory of a run (MB)", "of the process (MB)", "wasm heap (MB)", "accuracy (%)", "SQNR (dB)"),
        "top-1 as fp32 (%)",
    )
    lines = [cells for row in rows for variant in _SHOWN for cells in [_cost_cells(row, variant)]]
    notes = (
        "MACs and parameters are those of the network, also in int8. Activations: the most that is alive "
        "at once, by arithmetic, in float32. Memory: the most that an onnxruntime process took, in running "
        "alone and in all beyond an empty process. SQNR and top-1 agreement of int8 are against the same "
        "network in fp32. Accuracy: of 1,000 test images; cuts are reconstructed from 256 unlabelled images, "
        "not trained.",
        *_refusals(rows),
        *_skips(rows),
    )
    return Table("What the files cost", columns, tuple(lines), notes, (0, 1))


def _cost_cells(row: Row, variant: str) -> tuple[str, ...]:
    facts = row["variants"][variant]
    of_fp32 = row["variants"][variant.removesuffix(int8_of(""))]
    agreement = facts.get("agreement") if row["weights"] == "trained" else None
    return (
        row["network"],
        _NAMES[variant],
        f"{of_fp32['macs'] / 1e6:.1f}",
        f"{of_fp32['params']:,}",
        _number(facts.get("bytes"), 1e3, 0),
        _number(facts.get("peak_activation_bytes"), 1e3, 0),
        _number(_of(row, "memory", variant, "run_bytes"), 1e6, 1),
        _number(_of(row, "memory", variant, "total_bytes"), 1e6, 1),
        _number(_of(row, "wasm", variant, "heap_bytes"), 1e6, 1),
        _number(_of(row, "accuracy", variant, "share"), 0.01, 1),
        _number(facts.get("sqnr_db"), 1, 1),
        _number(agreement, 0.01, 1),
    )


# -- how much less -------------------------------------------------------------------------------


def _ratios(rows: Sequence[Row]) -> Table:
    columns = (
        *("network", "file", "fewer MACs", "smaller file", "less memory"),
        *("onnxruntime", "extended", "wasm"),
        *("ARM64 instructions (M)", "fewer"),
    )
    lines = [
        _ratio_cells(row, variant)
        for row in rows
        for variant in _SHOWN
        if "refused" not in row["variants"][variant]
    ]
    notes = (
        "Times less than the baseline in fp32. onnxruntime (its default graph optimisation, and EXTENDED, "
        "without blocks of 16 channels, as on ARM) and wasm (onnxruntime-web in node): one thread, batch 1, "
        "CPU time, medians of the ratios of interleaved rounds (10-90 %). ARM64 instructions: one inference "
        f"under qemu-user, {arm64.CPU}; no latency.",
    )
    return Table("Ratios to the baseline", columns, tuple(lines), notes, (0, 1))


def _ratio_cells(row: Row, variant: str) -> tuple[str, ...]:
    facts, base = row["variants"], row["variants"][BASE]
    macs = facts[variant.removesuffix(int8_of(""))]["macs"]
    memory = [_of(row, "memory", name, "total_bytes") for name in (BASE, variant)]
    return (
        row["network"],
        _NAMES[variant],
        f"{base['macs'] / macs:.2f}x",
        f"{base['bytes'] / facts[variant]['bytes']:.2f}x",
        "-" if None in memory else f"{memory[0] / memory[1]:.2f}x",
        *(_speedup(row, measure, variant) for measure in (*LEVELS, "wasm")),
        _number(_of(row, "arm64", variant, "count"), 1e6, 2),
        _number(_of(row, "arm64", variant, "fewer"), 1, 2, "x"),
    )


def _speedup(row: Row, measure: str, variant: str) -> str:
    found = row["measured"].get(measure, {}).get(variant)
    if found is None:
        return "-"
    return f"{found['speedup']:.2f}x ({found['speedup_p10']:.2f}-{found['speedup_p90']:.2f})"


# -- MACs become time ----------------------------------------------------------------------------


def _macs_become_time(rows: Sequence[Row]) -> Table:
    columns = (
        *("network", "optimisation", "cut", "fewer MACs", "promised", "speed-up", "10-90 %"),
        *("speed-up / MACs", "wasm / MACs", "ARM64 / MACs", "accuracy (%)", f"goal {_GOAL}"),
    )
    lines = [
        _time_cells(row, level, variant)
        for row in rows
        for level in LEVELS
        if level in row["measured"]
        for variant in (aware(level), plain(level))
    ]
    notes = (
        "Half of the MACs removed by the latency table of onnxruntime at that optimisation level (widths, "
        "and layers where it pays), which promised so much; and as many without a look at the runtime. "
        "speed-up / MACs: 1 where time falls as MACs do. Beside it the same of wasm and ARM64 instructions.",
    )
    return Table("MACs become time", columns, tuple(lines), notes, (0, 1, 2, -1))


def _time_cells(row: Row, level: str, variant: str) -> tuple[str, ...]:
    macs = row["variants"][BASE]["macs"] / row["variants"][variant]["macs"]
    timing = row["measured"][level][variant]
    share = timing["speedup"] / macs
    others = (_of(row, "wasm", variant, "speedup"), _of(row, "arm64", variant, "fewer"))
    return (
        row["network"],
        level,
        "by the table" if variant == aware(level) else "any",
        f"{macs:.2f}x",
        _number(row["variants"][variant].get("promised"), 1, 2, "x"),
        f"{timing['speedup']:.2f}x",
        f"{timing['speedup_p10']:.2f}-{timing['speedup_p90']:.2f}",
        f"{share:.2f}",
        *(_number(other, macs, 2) for other in others),
        _number(_of(row, "accuracy", variant, "share"), 0.01, 1),
        "" if variant != aware(level) else "met" if share >= _GOAL else "missed",
    )


# -- cells ---------------------------------------------------------------------------------------


def _of(row: Row, measure: str, variant: str, name: str) -> Any:
    return row["measured"].get(measure, {}).get(variant, {}).get(name)


def _number(value: float | None, unit: float, digits: int, suffix: str = "") -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f}{suffix}"


def _refusals(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row['network']}: {variant}: {facts['refused']}"
        for row in rows
        for variant, facts in row["variants"].items()
        if "refused" in facts
    ]


def _skips(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row['network']}: {name} skipped: {why}" for row in rows for name, why in row["skipped"].items()
    ]
