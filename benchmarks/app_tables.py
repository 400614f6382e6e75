"""The tables of app_claim: what was asked and what was reached, accuracy with intervals, recall by class."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.results import Table
from compressor.evaluation import (
    ClassChange,
    Interval,
    Predictions,
    classification,
    compare_classes,
    t_interval,
)

__all__ = ["MEASURES", "Measure", "accuracy_change", "reduction", "tables"]

ORIGINAL = "original"
FILES = (ORIGINAL, "original, int8", "small", "small, int8")
MEMORY, TIME, POINTS = 0.79, 0.72, 0.01  # what is asked: less memory, less time, accuracy that may go
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """One definition of memory or time: its value in a row for one file, None where there is none."""

    name: str
    asked: float
    value: Callable[[Row, str], float | None]
    shown: Callable[[float], str]
    speedup: Callable[[Row, str], Sequence[float]] | None = None


def reduction(measure: Measure, rows: Sequence[Row], file: str) -> float | None:
    """The share that `file` takes less than the original, the median over rows; times by paired ratios."""
    found = []
    for row in rows:
        value, whole = measure.value(row, file), measure.value(row, ORIGINAL)
        if value is None or whole is None:
            return None
        found.append(1 - (value / whole if measure.speedup is None else 1 / measure.speedup(row, file)[0]))
    return statistics.median(found)


def _counted(*names: str) -> Callable[[Row, str], float | None]:
    """Bytes by arithmetic, which knows float32 only."""

    def value(row: Row, file: str) -> float | None:
        numbers = row["arithmetic"].get(file)
        return None if numbers is None else sum(numbers[name] for name in names)

    return value


def _of_file(*path: str) -> Callable[[Row, str], float]:
    def value(row: Row, file: str) -> float:
        found = row["files"][file]
        for name in path:
            found = found[name]
        return float(found)

    return value


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.2f} MB"


def _time(name: str, runtime: str) -> Measure:
    return Measure(
        name,
        TIME,
        _of_file(runtime, "ms"),
        lambda value: f"{value:.2f} ms",
        lambda row, file: row["files"][file][runtime]["speedup"],
    )


def _process(row: Row, file: str) -> float:
    found = row["files"][file]["process"]
    return float(found["total"] + found["fixed"])


MEASURES = (
    Measure("memory: file", MEMORY, _of_file("file_bytes"), _megabytes),
    Measure("memory: weights, counted", MEMORY, _counted("weight_bytes"), _megabytes),
    Measure("memory: all activations, counted", MEMORY, _counted("activation_bytes"), _megabytes),
    Measure(
        "memory: activations at their peak, counted", MEMORY, _counted("peak_activation_bytes"), _megabytes
    ),
    Measure("memory: WebAssembly heap", MEMORY, _of_file("wasm", "heap_bytes"), _megabytes),
    Measure(
        "memory: onnxruntime process, beyond an empty model", MEMORY, _of_file("process", "total"), _megabytes
    ),
    Measure("memory: onnxruntime process, with its fixed cost", MEMORY, _process, _megabytes),
    _time("time: onnxruntime", "onnxruntime"),
    _time("time: onnxruntime, no blocks", "onnxruntime, no blocks"),
    _time("time: WebAssembly", "wasm"),
)


def tables(rows: Sequence[Row]) -> list[Table]:
    """What was reached; then what files take and what they name, of medical sets the recall by class."""
    cases = [[row for row in rows if row["key"] == key] for key in dict.fromkeys(row["key"] for row in rows)]
    found = [_claim_table(cases)] if cases else []
    for own in cases:
        found += [_costs_table(own), _accuracy_table(own)]
    found += [
        _classes_table(row) for row in rows if len(row["classes"]) < 10 and row["seed"] == rows[0]["seed"]
    ]
    return found


def _claim_table(cases: Sequence[Sequence[Row]]) -> Table:
    """The least that was reached by any definition, case by case."""
    lines = []
    for rows in cases:
        cells, met = [str(rows[0]["case"])], True
        for kind, asked in (("memory", MEMORY), ("time", TIME)):
            reached = {m.name: _reached(m, rows) for m in MEASURES if m.name.startswith(kind)}
            least = min(reached, key=lambda name: reached[name])
            met &= reached[least] >= asked
            cells.append(f"{100 * reached[least]:.1f} % ({least.removeprefix(f'{kind}: ')})")
        change = _over_seeds([accuracy_change(row, "small").change for row in rows])
        lines.append(
            (*cells, _points(change), _kept(change), "yes" if met and change.value >= -POINTS else "no")
        )
    columns = (
        "case",
        "less memory, at least",
        "less time, at least",
        "accuracy",
        "within 1 point",
        "claim met",
    )
    note = (
        f"In float32. The claim: {100 * MEMORY:.0f} % less memory, {100 * TIME:.0f} % less time, by every "
        "definition below, accuracy within 1 point."
    )
    return Table("The app's claim", columns, tuple(lines), (note,), (0, 1, 2))


def _reached(measure: Measure, rows: Sequence[Row]) -> float:
    found = reduction(measure, rows, "small")
    assert found is not None  # every measure knows the float32 files
    return found


def _costs_table(rows: Sequence[Row]) -> Table:
    lines = []
    for measure in MEASURES:
        cells = [measure.name]
        for file in FILES:
            values = [value for row in rows if (value := measure.value(row, file)) is not None]
            shown = measure.shown(statistics.median(values)) if values else "-"
            cells += [shown] if file == ORIGINAL else [shown, _less(measure, rows, file)]
        met = _reached(measure, rows) >= measure.asked
        lines.append((*cells, f"{100 * measure.asked:.0f} %", "yes" if met else "no"))
    before, after = rows[0]["arithmetic"][ORIGINAL], rows[0]["arithmetic"]["small"]
    files = [column for file in FILES[1:] for column in (file, "less")]
    columns = ("measure", ORIGINAL, *files, "asked", "met by small")
    notes = (
        f"{before['macs']:,} MACs and {before['params']:,} parameters before, {after['macs']:,} and "
        f"{after['params']:,} after; {rows[0]['budget']}. One image at a time, one thread. Medians over "
        f"{len(rows)} seed(s). Times are CPU time of interleaved rounds; less is 1 - 1 / the median of the "
        "rounds' ratios, in brackets that of their 10 % and 90 % quantiles.",
        "All activations are the sum of what operators write, the peak is the most needed at once. The "
        "heap is that of a fresh instance and starts at 16 MiB. The process is one that loads the file and "
        "runs it, at its highest; its fixed cost is what an empty model takes. No blocks: without the x86 "
        "layout that phones do not have.",
    )
    return Table(f"{rows[0]['case']}: what its files take", columns, tuple(lines), notes)


def _less(measure: Measure, rows: Sequence[Row], file: str) -> str:
    less = reduction(measure, rows, file)
    if less is None:
        return "-"
    if measure.speedup is None:
        return f"{100 * less:.1f} %"
    low, high = (statistics.median(1 - 1 / measure.speedup(row, file)[i] for row in rows) for i in (1, 2))
    return f"{100 * less:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def predictions(row: Row, file: str) -> Predictions:
    """What a file names the test images."""
    true, named = (
        np.array([int(digit) for digit in digits]) for digits in (row["labels"], row["named"][file])
    )
    return Predictions(true, named, tuple(row["classes"]))


def accuracy_change(row: Row, file: str) -> ClassChange:
    """Accuracy of the original and of a file, and their paired difference: all images as one class."""

    def right(which: str) -> Predictions:
        found = predictions(row, which)
        wrong = (found.predicted != found.true).astype(np.int64)
        return Predictions(np.zeros_like(wrong), wrong, ("right", "wrong"))

    (change,) = compare_classes(right(ORIGINAL), right(file)).changes
    return change


def _accuracy_table(rows: Sequence[Row]) -> Table:
    lines = []
    for file in FILES:
        changes = []
        for row in rows:
            rates = classification(predictions(row, file))
            cells = [
                file,
                str(row["seed"]),
                *map(_percent, (rates.accuracy, rates.balanced_accuracy, rates.macro_f1)),
            ]
            if file == ORIGINAL:
                cells += ["-", "-"]
            else:
                changes.append(accuracy_change(row, file).change)
                cells += [_points(changes[-1]), _kept(changes[-1])]
            lines.append(tuple(cells))
        if len(changes) > 1:
            mean = _over_seeds(changes)
            lines.append((file, "mean", "-", "-", "-", _points(mean), _kept(mean)))
    columns = (
        "file",
        "seed",
        "accuracy",
        "balanced accuracy",
        "macro F1",
        "accuracy, − original",
        "within 1 point",
    )
    notes = (
        f"{len(rows[0]['labels'])} test images, in onnxruntime; 95 % intervals over images (Wilson; "
        "bootstrap), differences paired image by image, of means over seeds by t. Within 1 point: 'yes' by "
        "the difference itself, 'surely' where its whole interval is above -1 point.",
    )
    return Table(f"{rows[0]['case']}: what its files name, %", columns, tuple(lines), notes, (0,))


def _over_seeds(changes: Sequence[Interval]) -> Interval:
    """The change itself where there is one seed; else the mean, with a t interval over seeds."""
    return changes[0] if len(changes) == 1 else t_interval([change.value for change in changes])


def _percent(rate: Interval) -> str:
    return f"{100 * rate.value:.1f} ({100 * rate.low:.1f}-{100 * rate.high:.1f})"


def _points(change: Interval) -> str:
    return f"{100 * change.value:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"


def _kept(change: Interval) -> str:
    return "surely" if change.low >= -POINTS else "yes" if change.value >= -POINTS else "no"


def _classes_table(row: Row) -> Table:
    """The recall of every class before and after."""
    found = compare_classes(predictions(row, ORIGINAL), predictions(row, "small"))
    lines = tuple(
        (
            c.name,
            str(c.samples),
            _percent(c.before),
            _percent(c.after),
            _points(c.change),
            str(c.lost),
            str(c.gained),
        )
        for c in sorted(found.changes, key=lambda change: row["classes"].index(change.name))
    )
    columns = ("class", "images", ORIGINAL, "small", "change", "lost", "gained")
    return Table(f"{row['case']}: recall of every class, seed {row['seed']}, %", columns, lines)
