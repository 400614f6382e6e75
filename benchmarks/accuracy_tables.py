"""What the runs of accuracy say: tables for each fraction, with errors over images and over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import results
from benchmarks.methods import Method

__all__ = [
    "DENSE",
    "STAGES",
    "accuracy_of",
    "best_peer",
    "difference",
    "grouped",
    "method_of",
    "rates_table",
    "share",
    "tables",
]

DENSE = Method("none", "dense", "-", "-")
STAGES = ("one_shot", "recovered", "fine_tuned")
Row = dict[str, Any]


def method_of(row: Row) -> Method:
    """The method of a run."""
    return Method(row["library"], row["scorer"], row["scope"], row["order"], row.get("extra", ""))


def grouped(rows: Sequence[Row]) -> dict[Method, list[Row]]:
    """The runs of each method, in the order of the first."""
    groups: dict[Method, list[Row]] = {}
    for row in rows:
        groups.setdefault(method_of(row), []).append(row)
    return groups


def tables(rows: Sequence[Row]) -> list[results.Table]:
    """One table for each fraction, with the network as it is on top."""
    dense = [row for row in rows if method_of(row) == DENSE]
    fractions = sorted({row["fraction"] for row in rows if method_of(row) != DENSE}, reverse=True)
    return [_table(f, dense, [row for row in rows if row["fraction"] == f]) for f in fractions]


_COLUMNS = (
    *("library", "scorer", "may cut", "order", "extra", "MACs left", "params left"),
    *("one-shot %", "before training %", "fine-tuned %", "seeds ±", "− torch-pruning", "seeds ±", "seeds"),
    "note",
)


def _table(fraction: float, dense: Sequence[Row], rows: Sequence[Row]) -> results.Table:
    groups = grouped([*dense, *rows])
    peer = best_peer(groups)
    lines = [_cells(method, found, groups[peer] if peer else []) for method, found in groups.items()]
    lines = [*lines[: bool(dense)], *sorted(lines[bool(dense) :], key=_by_result, reverse=True)]
    schedule = [*dense, *rows][0]["schedule"]
    notes = (
        f"{schedule['network']} (checkpoint), CIFAR-10: {schedule['test']} test images, "
        f"{schedule['train']} training images, {schedule['epochs']} epoch(s) of fine-tuning, SGD "
        f"from {schedule['rate']:g}, cosine: the same images in the same order for all. ± is the standard "
        "error over the test images; seeds ±: the standard deviation over seeds, each another order of the "
        "images, other crops and flips; differences are paired, image by image and seed by seed.",
        "extra: what a row gets beyond what all get. reconstructed: the layers behind the cut fitted anew to "
        "512 unlabelled training images instead of new statistics of norms; distilled: trained on the "
        "original's outputs, too.",
        "all: any layer; inner: only between a block's two convolutions. "
        f"− torch-pruning: fine-tuned, minus its best `inner` result ({peer or 'not run'}), picked "
        "on the same test images, which favours it.",
        "torch-pruning's `all` takes zero-padded shortcuts for element-wise operators and so mixes "
        "up channels; it runs, and is listed as it is. Its ratio is found by bisection.",
    )
    title = f"{schedule['network']}: {100 * (1 - fraction):.0f} % of the MACs removed"
    return results.Table(title, _COLUMNS, tuple(lines), notes, (0, 1, 2, 3, 4, -1))


def _cells(method: Method, found: Sequence[Row], peer: Sequence[Row]) -> tuple[str, ...]:
    done = [row for row in found if "right" in row]
    failures = "; ".join(row["failure"] for row in found if "failure" in row)

    def mean(key: str) -> str:
        return f"{statistics.mean(row[key] for row in done):.3f}" if done else "-"

    compared = method.library != "torch-pruning" and bool(peer)
    return (
        *(method.library, method.scorer, method.scope, method.order, method.extra),
        *(mean("macs_left"), mean("params_left")),
        *(accuracy_of(done, stage) for stage in STAGES),
        _spread([share([row], "fine_tuned") for row in done]),
        difference(done, peer) if compared else "",
        _spread(_by_seed(done, peer)) if compared else "",
        str(len(done)),
        failures,
    )


def best_peer(groups: Mapping[Method, Sequence[Row]]) -> Method | None:
    """The best row of torch-pruning within the blocks after fine-tuning, or None without any."""
    found = {
        method: share(rows, "fine_tuned")
        for method, rows in groups.items()
        if method.library == "torch-pruning"
        and method.scope == "inner"
        and any("right" in row for row in rows)
    }
    return max(found, key=lambda method: found[method], default=None)


def share(rows: Sequence[Row], stage: str) -> float:
    """The share of right answers over all runs."""
    rights = "".join(row["right"][stage] for row in rows if "right" in row)
    return rights.count("1") / len(rights)


def accuracy_of(rows: Sequence[Row], stage: str) -> str:
    """Percent of right answers and their standard error over the test images."""
    if not rows:
        return "-"
    right, n = share(rows, stage), len(rows[0]["right"][stage])
    # More seeds share the test images, so they do not make this error smaller.
    return f"{100 * right:.1f} ± {100 * math.sqrt(right * (1 - right) / n):.1f}"


def difference(rows: Sequence[Row], peer: Sequence[Row], *, stage: str = "fine_tuned") -> str:
    """Points of accuracy over the peer's and their standard error, image by image."""
    mine, theirs = _paired(rows, peer)
    if not mine:
        return "-"
    gains = [a - b for a, b in zip(_per_image(mine, stage), _per_image(theirs, stage), strict=True)]
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    return f"{100 * statistics.mean(gains):+.1f} ± {100 * error:.1f}"


def _paired(rows: Sequence[Row], peer: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The runs of both with the seeds that both have, in the order of the seeds."""
    both = [{row["seed"]: row for row in found if "right" in row} for found in (rows, peer)]
    seeds = sorted(both[0].keys() & both[1].keys())
    return [both[0][seed] for seed in seeds], [both[1][seed] for seed in seeds]


def _by_seed(rows: Sequence[Row], peer: Sequence[Row]) -> list[float]:
    """What is gained over the peer with each seed."""
    return [
        share([mine], "fine_tuned") - share([theirs], "fine_tuned")
        for mine, theirs in zip(*_paired(rows, peer), strict=True)
    ]


def _spread(shares: Sequence[float]) -> str:
    """The standard deviation of shares, in points."""
    return f"{100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else "-"


def _per_image(rows: Sequence[Row], stage: str) -> list[float]:
    runs = [[int(bit) for bit in row["right"][stage]] for row in rows]
    return [statistics.mean(image) for image in zip(*runs, strict=True)]


def _by_result(cells: tuple[str, ...]) -> float:
    fine_tuned = cells[_COLUMNS.index("fine-tuned %")]
    return -1.0 if fine_tuned == "-" else float(fine_tuned.split()[0])


def rates_table(rows: Sequence[Row]) -> list[results.Table]:
    """Each method after fine-tuning with each rate, on training images that were held out."""
    rates = sorted({row["rate"] for row in rows})
    fractions = sorted({row["fraction"] for row in rows}, reverse=True)
    lines = []
    for method, found in grouped(rows).items():
        for fraction in fractions:
            at = {
                rate: [row for row in found if (row["rate"], row["fraction"]) == (rate, fraction)]
                for rate in rates
            }
            if any(at.values()):
                cells = (accuracy_of([r for r in at[rate] if "right" in r], "fine_tuned") for rate in rates)
                lines.append((str(method), f"{fraction:g}", *cells))
    schedule = rows[0]["schedule"]
    notes = (
        f"CIFAR-10, {schedule['epochs']} epoch(s) of fine-tuning on {schedule['train'] - schedule['test']} "
        f"training images, tested on {schedule['test']} others. The checkpoints were trained on all of "
        "them: compare rows and rates, not with the test images.",
    )
    title = f"{schedule['network']}: fine-tuning rates, held-out training images, %"
    columns = ("method", "MACs left", *(f"rate {rate:g}" for rate in rates))
    return [results.Table(title, columns, tuple(lines), notes)]
