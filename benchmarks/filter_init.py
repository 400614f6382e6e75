"""What initial filters are worth: three small experiments on CIFAR-10, each beside He's.

    python -m benchmarks.filter_init [--quick] [--parts first deep redraw] [--seeds N ...]

`first`: the first layer of a small network from data or closed forms (k-means, PCA, Gabor, ...), trained with
the rest or frozen, on few labels; and the second from the kernels of a trained network. `deep`: a network
of 24 convolutions without norms or shortcuts. `redraw`: degenerate filters of a pruned ResNet-20 drawn
anew before the fine-tuning. Arms of one seed share their images, their order and all other weights. Finished
runs are kept in `benchmarks/results/`; a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import compressor as cp
from benchmarks import cifar, results, resuming, zoo
from benchmarks.filter_init_runs import (
    DEEP,
    FIRST,
    FROZEN,
    REDRAWN,
    SECOND,
    deep,
    first_layer,
    images,
    redraw,
)
from benchmarks.resuming import Row
from compressor.evaluation import t_interval
from compressor.training import Recipe

PARTS = ("first", "deep", "redraw")
BASELINES = {"first": "He", "deep": "He", "redraw": "left as they are"}


@dataclass(frozen=True)
class Job:
    """One training."""

    part: str
    arm: str
    labels: int
    seed: int


def main() -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(options.threads)
    kind = "filter_init-quick" if options.quick else "filter_init"
    facts = results.context("filter_init", vars(options), seeds=options.seeds)
    rows = resuming.kept(kind, _schedule(options))
    todo = [job for job in jobs(options) if not any(_of(row) == job for row in rows)]
    try:
        shared = zoo.shared_folder(options.shared)
        if shared is None:
            raise zoo.Missing("no shared data: name the folder with --shared or COMPRESSOR_SHARED")
        run = _runner(shared, options)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0

    def keep(row: Row) -> None:
        rows.append(row)
        results.save(kind, facts, rows, tables(rows))

    resuming.go_on(len(rows), todo, run, keep, _line)
    resuming.show(kind, facts, rows, tables)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filter_init", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every arm once, on a few images")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default 0 to 4, with --quick 0")
    parser.add_argument("--threads", type=int, default=1)
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    options.seeds = options.seeds or ([0] if options.quick else [0, 1, 2, 3, 4])
    return options


def _schedule(options: argparse.Namespace) -> dict[str, Any]:
    """Numbers of images and epochs."""
    if options.quick:
        return {
            "labels": [100],
            "first": [1],
            "deep": [1, 100],
            "redraw": [1, 64],
            "test": 250,
            "unlabelled": 300,
        }
    return {
        "labels": [500, 2000],
        "first": [12, 5],
        "deep": [4, 2000],
        "redraw": [2, 2000],
        "test": 2000,
        "unlabelled": 2000,
    }


def jobs(options: argparse.Namespace) -> list[Job]:
    """Everything that is asked for."""
    schedule = _schedule(options)
    first = [*FIRST, *SECOND, *(name + FROZEN for name in FIRST)]
    found = {
        "first": [(arm, labels) for labels in schedule["labels"] for arm in first],
        "deep": [(arm, schedule["deep"][1]) for arm in DEEP],
        "redraw": [(arm, schedule["redraw"][1]) for arm in REDRAWN],
    }
    return [
        Job(part, arm, labels, seed)
        for seed in options.seeds  # first, so that an interrupted run leaves whole comparisons
        for part in PARTS
        if part in options.parts
        for arm, labels in found[part]
    ]


def _of(row: Row) -> Job:
    return Job(row["part"], row["arm"], row["labels"], row["seed"])


def _runner(shared: Path, options: argparse.Namespace) -> Callable[[Job], Row]:
    schedule = _schedule(options)
    data = images(shared, test=schedule["test"], unlabelled=schedule["unlabelled"])
    epochs, count = schedule["redraw"]
    model, pruning = cifar.load(shared, train=count, test=min(schedule["test"], 1000), name="resnet20_cifar")
    banks = cp.filters.banks(model, kernel_size=3)

    def found(job: Job) -> Row:
        if job.part == "first":
            turns = schedule["first"][schedule["labels"].index(job.labels)]
            recipe = Recipe(epochs=turns, lr=0.02, weight_decay=5e-4, seed=job.seed)
            return first_layer(data, job.arm, job.labels, job.seed, recipe, banks)
        if job.part == "deep":
            recipe = Recipe(epochs=schedule["deep"][0], lr=0.01, clip_norm=1.0, seed=job.seed)
            return deep(data, job.arm, job.labels, job.seed, recipe)
        return redraw(model, pruning, job.arm, job.seed, Recipe(epochs=epochs, lr=0.02, seed=job.seed))

    return lambda job: {**vars(job), "schedule": schedule, **found(job)}


# -- tables --------------------------------------------------------------------------------------


def tables(rows: Sequence[Row]) -> list[results.Table]:
    """One table for each experiment and number of labels."""
    made = []
    for part, build in (("first", _first_table), ("deep", _deep_table), ("redraw", _redraw_table)):
        own = [row for row in rows if row["part"] == part]
        for labels in sorted({row["labels"] for row in own}):
            made.append(build([row for row in own if row["labels"] == labels], labels))
    return made


def _first_table(rows: Sequence[Row], labels: int) -> results.Table:
    schedule = rows[0]["schedule"]
    epochs = schedule["first"][schedule["labels"].index(labels)]
    lines = []
    for arm in (*FIRST, *SECOND):
        cells = _cells(rows, arm, "He") + _cells(rows, arm + FROZEN, "He" + FROZEN)
        lines.append((arm, *cells, str(sum(row["arm"] == arm for row in rows))))
    return results.Table(
        f"First layer, {labels} labels",
        ("start", "trained %", "− He", "frozen %", "− He, frozen", "seeds"),
        tuple(lines),
        (
            f"CIFAR-10 (JPEG copy), {schedule['test']} test images, {epochs} epochs of SGD (momentum 0.9, "
            "from 0.02, cosine); a 5 x 5 and a 3 x 3 convolution, each with a batch norm, and a matrix. Mean "
            "± deviation over seeds; differences are paired by seed, with their 95 % interval (t), bold "
            f"where it leaves out 0. Filters are learnt from {schedule['unlabelled']} images without labels; "
            "reference: the second layer, from the 3 x 3 kernels of a ResNet-20 that was trained on all of "
            "CIFAR-10.",
        ),
    )


def _deep_table(rows: Sequence[Row], labels: int) -> results.Table:
    lines = []
    for arm in DEEP:
        own = [row for row in rows if row["arm"] == arm]
        done = [row for row in own if "failure" not in row]
        spreads = f"{statistics.mean(row['spread'] for row in own):.2g}" if own else "-"
        first = _mean_sd([row["losses"][0] for row in done], "{:.3f}")
        last = _mean_sd([row["losses"][-1] for row in done], "{:.3f}")
        counts = str(len(own)), str(len(own) - len(done))
        lines.append((arm, spreads, first, last, *_cells(rows, arm, "He"), *counts))
    epochs = rows[0]["schedule"]["deep"][0]
    return results.Table(
        f"24 convolutions without norms, {labels} labels",
        (
            "start",
            "logits ±",
            "loss, epoch 1",
            f"loss, epoch {epochs}",
            "accuracy %",
            "− He",
            "seeds",
            "failed",
        ),
        tuple(lines),
        (
            "3 x 3 convolutions of width 12 with ReLU; SGD (momentum 0.9, from 0.01, cosine, gradients "
            "clipped to norm 1). Chance is a loss of 2.303 and 10 %. Mean ± deviation over seeds; logits "
            "±: their deviation before the training.",
        ),
    )


def _redraw_table(rows: Sequence[Row], labels: int) -> results.Table:
    lines = []
    for arm in REDRAWN:
        own = [row for row in rows if row["arm"] == arm]
        counts = [_mean([row[key] for row in own]) for key in ("degenerate", "degenerate_after")]
        cut = _mean_sd([100 * row["cut"] for row in own], "{:.1f}")
        loss = _mean_sd([row["losses"][-1] for row in own], "{:.3f}")
        lines.append((arm, *counts, cut, loss, *_cells(rows, arm, BASELINES["redraw"]), str(len(own))))
    epochs = rows[0]["schedule"]["redraw"][0]
    return results.Table(
        "Degenerate filters of a pruned ResNet-20",
        (
            "drawn anew",
            "degenerate",
            "after tuning",
            "cut %",
            "last loss",
            "fine-tuned %",
            "− as they are",
            "seeds",
        ),
        tuple(lines),
        (
            f"ResNet-20 (checkpoint) without random channels that hold half of the MACs, {labels} training "
            f"images, {epochs} epochs (SGD, from 0.02, cosine). Norms of weights remove nearly all "
            "degenerate filters by themselves, so that nothing is left to draw. degenerate: dead at 1 % "
            "with batch norm folded in, or copies (cos 0.95).",
        ),
    )


def _cells(rows: Sequence[Row], arm: str, baseline: str) -> tuple[str, str]:
    """Accuracy in percent, and its paired difference to the baseline."""
    own = {row["seed"]: row["accuracy"] for row in rows if row["arm"] == arm and "accuracy" in row}
    base = {row["seed"]: row["accuracy"] for row in rows if row["arm"] == baseline and "accuracy" in row}
    both = [100 * (own[seed] - base[seed]) for seed in own if seed in base]
    return _mean_sd([100 * value for value in own.values()], "{:.1f}"), "" if arm == baseline else _gain(both)


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f}" if values else "-"


def _mean_sd(values: Sequence[float], digits: str) -> str:
    if not values:
        return "-"
    mean = digits.format(statistics.mean(values))
    return mean if len(values) < 2 else f"{mean} ± {digits.format(statistics.stdev(values))}"


def _gain(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "-" if not values else f"{values[0]:+.1f}"
    interval = t_interval(values)
    text = f"{statistics.mean(values):+.1f} ± {(interval.high - interval.low) / 2:.1f}"
    return text if interval.low <= 0 <= interval.high else f"**{text}**"


def _line(row: Row) -> str:
    head = f"{row['part']}, {row['arm']}, {row['labels']} labels, seed {row['seed']}: "
    return head + (row.get("failure") or f"{100 * row['accuracy']:.1f} %, loss {row['losses'][-1]:.3f}")


if __name__ == "__main__":
    sys.exit(main())
