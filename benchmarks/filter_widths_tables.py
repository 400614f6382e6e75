"""The tables of the benchmark of widths and kernels."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import results
from benchmarks.sparse_training import interval

__all__ = ["tables"]

Rows = Sequence[dict[str, Any]]


def tables(rows: dict[str, Any]) -> list[results.Table]:
    """A table for each part and fraction of which there are runs."""
    runs, made = rows["runs"], []
    for fraction in sorted({row["fraction"] for row in runs if row["part"] == "pruned"}, reverse=True):
        made.append(_pruned(_of(runs, "pruned", fraction), rows["schedule"], fraction))
    for fraction in sorted({row["fraction"] for row in runs if row["part"] == "scratch"}, reverse=True):
        made.append(_scratch(_of(runs, "scratch", fraction), rows["schedule"], fraction))
    kernels = _of(runs, "kernels", 1.0)
    return [*made, _kernels(kernels, rows["latency"], rows["schedule"])] if kernels else made


def _of(runs: Rows, part: str, fraction: float) -> Rows:
    return [row for row in runs if row["part"] == part and row["fraction"] == fraction]


def _pruned(runs: Rows, schedule: dict[str, Any], fraction: float) -> results.Table:
    stages = ("cut", "norms", "tuned")
    body = [
        (
            method,
            *_cost(found),
            *(interval([_percent(row["right"][stage]) for row in found]) for stage in stages),
            _paired(runs, found, "tuned"),
        )
        for method, found in _by_method(runs)
    ]
    notes = (
        f"The same scores (the default) choose channels within a layer; {schedule['epochs']} epochs of "
        f"fine-tuning on {schedule['train']} images, {schedule['test']} test images. ± is the 95 % interval "
        "(t) over seeds of the fine-tuning; that of one accuracy over test images is some ± 2 points. − "
        "uniform: fine-tuned, of the same seed. scores: all channels of the network ranked together.",
    )
    columns = ("widths by", "MACs left", "params left", "cut %", "norms anew %", "fine-tuned %", "− uniform")
    return results.Table(f"Pruned to {fraction:.0%} of the MACs", columns, tuple(body), notes)


def _scratch(runs: Rows, schedule: dict[str, Any], fraction: float) -> results.Table:
    body = [
        (
            method,
            *_cost(found),
            interval([_percent(row["right"]["trained"]) for row in found]),
            _paired(runs, found, "trained"),
        )
        for method, found in _by_method(runs)
    ]
    notes = (
        f"Widths as read off the checkpoint, random weights, {schedule['scratch_epochs']} epochs on "
        f"{schedule['train']} images: far from converged. ± is the 95 % interval (t) over seeds.",
    )
    columns = ("widths by", "MACs left", "params left", "trained %", "− uniform")
    return results.Table(f"Trained from scratch at {fraction:.0%} of the MACs", columns, tuple(body), notes)


def _kernels(runs: Rows, latency: dict[str, Any], schedule: dict[str, Any]) -> results.Table:
    body = []
    for method, (row, *_) in _by_method(runs):
        timing = latency.get(method)
        times = "-" if timing is None else "{:.2f} ({:.2f}-{:.2f})".format(timing["times"], *timing["range"])
        rights = (f"{_percent(row['right'][stage]):.1f}" for stage in ("cut", "norms", "tuned"))
        body.append((method, f"{row['macs']:.3f}", times, f"{row['error']:.2g}", *rights))
    notes = (
        "k = …: every convolution with kernels of several places becomes a depthwise one on k shared kernels "
        "and a 1x1 one. Time: of the original's in onnxruntime, one thread and image, medians of interleaved "
        f"rounds with their 10-90 % range. 1 epoch of fine-tuning on {schedule['train'] // 2} images, one "
        "seed; the standard error over test images is some 1 point.",
    )
    columns = ("basis", "MACs left", "time", "output error", "replaced %", "norms anew %", "fine-tuned %")
    return results.Table("Shared kernels", columns, tuple(body), notes)


def _by_method(runs: Rows) -> Iterator[tuple[str, Rows]]:
    for method in dict.fromkeys(row["method"] for row in runs):
        yield method, [row for row in runs if row["method"] == method]


def _cost(found: Rows) -> tuple[str, str]:
    return f"{found[0]['macs']:.3f}", f"{found[0]['params']:.3f}"


def _paired(runs: Rows, found: Rows, stage: str) -> str:
    """The difference to the uniform widths of the same seed."""
    uniform = {row["seed"]: _percent(row["right"][stage]) for row in runs if row["method"] == "uniform"}
    pairs = [_percent(row["right"][stage]) - uniform[row["seed"]] for row in found if row["seed"] in uniform]
    if not pairs or found[0]["method"] == "uniform":
        return "-"
    return f"{'+' if statistics.mean(pairs) >= 0 else ''}{interval(pairs)}"


def _percent(right: str) -> float:
    return 100 * right.count("1") / len(right)
