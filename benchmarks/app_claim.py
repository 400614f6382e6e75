"""Small enough and fast enough for a phone: a VGG-16 on medical images, before and after, file by file.

    python -m benchmarks.app_claim [--quick] [--cases NAME ...] [--seeds N ...]

Every classifier is trained (or read from its checkpoint), cut, fitted, taught by the original and written
as ONNX files in float32 and int8. Time, memory and accuracy are those of the files. Every finished run is
kept in `benchmarks/results/`, every training under `out/`; a run that was interrupted goes on where it
stopped. `--tables` only prints what is there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

import compressor as cp
from benchmarks import app_tables, results, resuming, zoo
from benchmarks.app_measures import check_machine, costs_of_files, named
from benchmarks.app_networks import CASES, Case, Lengths, case, pruned
from benchmarks.resuming import Row

_FILES = zoo.ROOT / "out" / "app_claim" / "files"
_CALIBRATED_ON = 512  # images for the ranges of int8
_TIMED_ON = 64  # images that files are run on in WebAssembly, one by one


def main() -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(options.threads)
    kind = "app_claim-quick" if options.quick else "app_claim"
    facts = results.context("app_claim", vars(options), seeds=options.seeds)
    lengths = Lengths(options.epochs, options.tuning, options.images)
    rows = done(kind, asdict(lengths))
    wanted = [] if options.tables else todo(options, rows)

    def keep(row: Row) -> None:
        rows[:] = in_order([*rows, row])
        results.save(kind, facts, rows, app_tables.tables(rows))

    try:
        if wanted:
            check_machine()
        resuming.go_on(len(rows), wanted, lambda key: run(*key, lengths, options), keep, _line)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    resuming.show(kind, facts, rows, app_tables.tables)
    return 0


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.app_claim", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="HAM10000, 192 images, one epoch, few rounds")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=None, help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--epochs", type=int, default=None, help="of the original VGG-16: 8, quick 1")
    parser.add_argument("--tuning", type=int, default=None, help="epochs of the small network: 12, quick 1")
    parser.add_argument("--images", type=int, default=None, help="of each part: all, quick 192")
    parser.add_argument("--rounds", type=int, default=None, help="of timing: 120, quick 5")
    parser.add_argument("--threads", type=int, default=1, help="of the training; timing is on one")
    parser.add_argument("--tables", action="store_true", help="only print what is done")
    zoo.add_shared_option(parser)
    options = parser.parse_args(arguments)
    quick = options.quick
    options.cases = options.cases or (["HAM10000"] if quick else list(CASES))
    options.epochs = options.epochs or (1 if quick else 8)
    options.tuning = options.tuning or (1 if quick else 12)
    options.images = options.images or (192 if quick else None)
    options.rounds = options.rounds or (5 if quick else 120)
    return options


def todo(options: argparse.Namespace, rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Cases and seeds without a row. A checkpoint has one seed: the first."""
    found = [
        (name, seed)
        for seed in options.seeds
        for name in options.cases
        if seed == options.seeds[0] or not name.startswith("ResNet")
    ]
    finished = {(row["key"], row["seed"]) for row in rows}
    return [pair for pair in found if pair not in finished]


def done(kind: str, wanted: Row) -> list[Row]:
    """Earlier runs; they count only if they were trained alike."""
    return in_order(resuming.kept(kind, wanted, under="lengths"))


def in_order(rows: Sequence[Row]) -> list[Row]:
    """The rows case by case and seed by seed, whenever they were made."""
    return sorted(rows, key=lambda row: (list(CASES).index(row["key"]), row["seed"]))


def run(name: str, seed: int, lengths: Lengths, options: argparse.Namespace) -> Row:
    """One classifier before and after: its arithmetic costs, what its files take and what they name."""
    it = case(name, zoo.shared_folder(options.shared), lengths)
    original = it.original(seed)
    nets = {"original": original, "small": pruned(it, original, seed=seed)}
    files = written(nets, it, _FILES / f"{name}-{seed}")
    images, labels = it.test
    return {
        "key": name,
        "case": it.name,
        "seed": seed,
        "lengths": asdict(lengths),
        "classes": list(it.classes),
        "budget": repr(it.budget),
        "arithmetic": {which: _arithmetic(net, it) for which, net in nets.items()},
        "files": costs_of_files(files, images[:_TIMED_ON], rounds=options.rounds),
        # One digit for each test image, so that rates can be computed anew, and compared image by image.
        "labels": "".join(map(str, labels.tolist())),
        "named": {which: "".join(map(str, named(file, images))) for which, file in files.items()},
    }


def written(nets: Mapping[str, nn.Module], it: Case, folder: Path) -> dict[str, Path]:
    """The files by name: both networks in float32, then in int8 (also where that is slower: it is shown)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {which: folder / f"{which}.onnx" for which in nets}
    for which, net in nets.items():
        cp.export.onnx(net, it.example, files[which])
    calibration = it.images[:_CALIBRATED_ON].contiguous().split(64)
    for which in nets:
        files[f"{which}, int8"] = folder / f"{which}.int8.onnx"
        cp.export.int8(files[which], calibration, files[f"{which}, int8"], even_if_slower=True)
    return files


def _line(row: Row) -> str:
    return f"{row['key']}, seed {row['seed']}"


def _arithmetic(net: nn.Module, it: Case) -> Row:
    found = cp.profile(net, it.example)
    return {
        "macs": found.macs,
        "params": found.params,
        "weight_bytes": found.weight_bytes,
        "activation_bytes": found.activation_bytes,
        "peak_activation_bytes": found.peak_activation_bytes,
    }


if __name__ == "__main__":
    sys.exit(main())
