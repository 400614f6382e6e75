"""What scoring costs beside the forward passes that it reads, interleaved, on one thread.

    python -m benchmarks.scoring_cost [--quick] [--rounds N] [--models NAME ...]

The floor of a criterion on activations is to run the model on the batches. Each round times that and
every scorer in turn, the order turning, and the ratio is taken within the round.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

import compressor as cp
from benchmarks import results, zoo
from compressor.scoring import BetaRank, Norm, Scorer

SEED = 0
N_CLASSES = 10
FORWARD = "forward"
Batches = list[tuple[Tensor, Tensor]]

# Name: (pixels, images in a batch).
MODELS: Mapping[str, tuple[int, int]] = {
    "resnet20_cifar": (32, 128),
    "resnet56_cifar": (32, 128),
    "vgg16_bn": (64, 16),
    "mobilenet_v2": (96, 64),
}
QUICK = ("resnet20_cifar", "mobilenet_v2")

SCORERS: Mapping[str, Callable[[Batches], Scorer]] = {
    "beta-rank": BetaRank,
    "pooled": lambda batches: BetaRank(batches, positions="pool"),
    "balanced": lambda batches: BetaRank(batches, balanced=True),
    "published": lambda batches: BetaRank(batches, published=True, otherwise=Norm()),
}


def main() -> int:
    """The exit code after measuring what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring_cost", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two networks, three rounds")
    parser.add_argument("--rounds", type=int, default=None, help="default 5, with --quick 3")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", choices=list(MODELS))
    parser.add_argument("--batches", type=int, default=2, help="batches that each pass reads (2)")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    torch.set_num_threads(1)
    kind = f"scoring_cost{'-some' if options.models else '-quick' if options.quick else ''}"
    facts = results.context("scoring_cost", vars(options), seeds=[SEED])
    rows = []
    for name in options.models or (QUICK if options.quick else MODELS):
        rows.append({"network": name, **measured(name, options.batches, options.rounds)})
        print("  ".join(_cells(rows[-1])), flush=True)
        results.save(kind, facts, rows, [table(rows)])
    written = results.save(kind, facts, rows, [table(rows)])
    print(f"\n{table(rows).text()}\n\nwritten to {written}")
    return 0


def measured(name: str, n_batches: int, rounds: int) -> dict[str, Any]:
    """CPU seconds of the forward passes and of each scorer, round by round; a first round warms up."""
    pixels, size = MODELS[name]
    model, batches = _model_and_batches(name, pixels, size, n_batches)
    graph = cp.capture(model, batches[0][0][:2])
    work: dict[str, Callable[[], object]] = {FORWARD: lambda: _forward(model, batches)}
    for label, make in SCORERS.items():
        work[label] = lambda make=make: cp.score(graph, make(batches))  # type: ignore[misc]
    times = []
    for number in range(-1, rounds):
        gc.collect()
        order = list(work) if number % 2 else list(reversed(work))
        found = {label: _seconds(work[label]) for label in order}
        if number >= 0:
            times.append(found)
    return {"pixels": pixels, "batch": size, "batches": n_batches, "rounds": times}


def _model_and_batches(name: str, pixels: int, size: int, n_batches: int) -> tuple[nn.Module, Batches]:
    torch.manual_seed(SEED)
    model = cp.models.create(name).eval()
    batches = [
        (torch.randn(size, 3, pixels, pixels), torch.randint(0, N_CLASSES, (size,))) for _ in range(n_batches)
    ]
    return model, batches


def _forward(model: nn.Module, batches: Batches) -> None:
    with torch.no_grad():
        for images, _ in batches:
            model(images)


def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def ratios(row: Mapping[str, Any], label: str) -> list[float]:
    """The time of a scorer over that of the forward passes, in each round."""
    return [times[label] / times[FORWARD] for times in row["rounds"]]


def table(rows: Sequence[Mapping[str, Any]]) -> results.Table:
    """A line for each network."""
    worst = max((statistics.median(ratios(row, "beta-rank")), row["network"]) for row in rows)
    notes = (
        "Time of scoring over that of the forward passes that it reads (1 would be free): medians of the "
        f"ratio in each round, with the least and the largest. Worst: {worst[0]:.2f} ({worst[1]}).",
        "Labels are of ten classes. The more images in a batch the better: statistics are merged once for "
        "each batch, and for each class in it.",
    )
    columns = ("network", "pixels", "images", "forward ms", *SCORERS)
    return results.Table("Cost of scoring", columns, tuple(_cells(row) for row in rows), notes)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    forward = statistics.median(times[FORWARD] for times in row["rounds"])
    spreads = []
    for label in SCORERS:
        found = ratios(row, label)
        spreads.append(f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})")
    images = f"{row['batches']} x {row['batch']}"
    return (row["network"], str(row["pixels"]), images, f"{1e3 * forward:.0f}", *spreads)


if __name__ == "__main__":
    sys.exit(main())
