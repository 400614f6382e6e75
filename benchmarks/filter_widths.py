"""Widths by spectra against uniform ones at equal MACs, and kernels that share a basis: ResNet-20, CIFAR-10.

    python -m benchmarks.filter_widths [--quick] [--parts pruned scratch kernels] [--fraction F]

*pruned*: the checkpoint is cut to the same MACs by every rule for widths (the same scores choose the channels
within a layer) and fine-tuned alike. *scratch*: networks of these widths are trained from random weights.
*kernels*: every 3x3 layer gets k shared kernels, or as many as a rule asks for. Finished runs are kept in
`benchmarks/results/`; a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import results, resuming, zoo
from benchmarks.filter_widths_runs import BASES, RULES, SCRATCH, Setting, changed, latencies, pruned, scratch
from benchmarks.filter_widths_tables import tables
from benchmarks.resuming import Row

PARTS = ("pruned", "scratch", "kernels")


def main(arguments: list[str] | None = None) -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    try:
        setting = Setting.drawn() if options.quick else Setting.of(zoo.shared_folder(options.shared), options)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    kind = "filter_widths-quick" if options.quick else "filter_widths"
    facts = results.context("filter_widths", vars(options), seeds=options.seeds)
    rows = _done(kind, options)
    todo = [key for key in _keys(options) if not any(_key(row) == key for row in rows["runs"])]

    def run(key: Key) -> Row:
        part, method, fraction, seed = key
        found = _RUNS[part](setting, method, fraction, seed, options)
        return {"part": part, "method": method, "fraction": fraction, "seed": seed, **found}

    def keep(row: Row) -> None:
        rows["runs"].append(row)
        results.save(kind, facts, rows, tables(rows))

    whole = resuming.go_on(len(rows["runs"]), todo, run, keep, _line)
    if whole and "kernels" in options.parts and not rows["latency"]:
        rows["latency"] = latencies(setting, options)
    resuming.show(kind, facts, rows, tables)
    return 0


Key = tuple[str, str, float, int]
_RUNS: dict[str, Callable[[Setting, str, float, int, argparse.Namespace], dict[str, Any]]] = {
    "pruned": pruned,
    "scratch": scratch,
    "kernels": changed,
}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filter_widths", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small network, drawn images, one epoch each")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--fraction", type=float, default=0.3, help="of MACs left by widths")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default 0 1 2, with --quick 0")
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning after pruning")
    parser.add_argument("--scratch-epochs", type=int, default=6)
    parser.add_argument("--train", type=int, default=4000, help="images; half of them for the kernels")
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=40, help="of the latency measurement")
    parser.add_argument("--threads", type=int, default=1)
    zoo.add_shared_option(parser)
    options = parser.parse_args(arguments)
    options.seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    if options.quick:
        options.epochs = options.scratch_epochs = 1
        options.rounds = 5
    return options


def _keys(options: argparse.Namespace) -> list[Key]:
    """Every run that is asked for; kernels have one seed, and no fraction of their own."""
    quick: dict[str, Any] = {"pruned": 2, "scratch": 1, "kernels": 2}
    found: list[Key] = []
    for part, methods in (("pruned", RULES), ("scratch", SCRATCH)):
        names = list(methods)[: quick[part]] if options.quick else methods
        found += [(part, name, options.fraction, seed) for seed in options.seeds for name in names]
    bases = list(BASES)[: quick["kernels"]] if options.quick else BASES
    found += [("kernels", name, 1.0, options.seeds[0]) for name in bases]
    return [key for key in found if key[0] in options.parts]


def _key(row: dict[str, Any]) -> Key:
    return row["part"], row["method"], row["fraction"], row["seed"]


def _line(row: Row) -> str:
    return f"{row['part']}, {row['method']}, seed {row['seed']}"


def _schedule(options: argparse.Namespace) -> dict[str, Any]:
    names = ("epochs", "scratch_epochs", "train", "test")
    return {name: getattr(options, name) for name in names}


def _done(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Earlier runs; they count only if they were trained and tested alike."""
    earlier = results.read(kind)
    if earlier is None:
        return {"runs": [], "latency": {}, "schedule": _schedule(options)}
    rows: dict[str, Any] = earlier["rows"]
    resuming.require_alike(kind, [rows["schedule"]], _schedule(options))
    return rows


if __name__ == "__main__":
    sys.exit(main())
