"""Pruned networks as files for phones: size, memory, time and instructions beside what they were.

    python -m benchmarks.phone [--quick] [--nets NAME ...] [--rounds N] [--fresh] [--cache DIR]

Half of the MACs go, once by the runtime's latency table (widths, and layers where it pays), once without a
look at the runtime. The files are kept under `out/phone`; every measurement is saved when it is done, and
the same command goes on where it stopped; `--fresh` cuts and measures anew. `--tables` only prints what is
done.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import results, zoo
from benchmarks.phone_files import made
from benchmarks.phone_measures import MEASURES, Subject
from benchmarks.phone_nets import NAMES, QUICK, SEED, network
from benchmarks.phone_tables import tables

_OUT = zoo.ROOT / "out" / "phone"


def main() -> int:
    """The exit code after the measurements that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kind = "phone-quick" if options.quick else "phone"
    facts = results.context("phone", vars(options), seeds=[SEED])
    earlier = results.read(kind)
    rows: list[dict[str, Any]] = earlier["rows"] if earlier else []
    for name in [] if options.tables else options.nets or (QUICK if options.quick else NAMES):
        row = next((row for row in rows if row["network"] == name), None)
        if row is not None and not missing_of(row) and not options.fresh:
            print(f"{name}: done", flush=True)
            continue
        try:
            row, subject = _subject(name, row, options)
        except zoo.Missing as missing:
            print(f"{name}: skipped: {missing}", flush=True)
            continue
        others = [other for other in rows if other["network"] != name]
        rows = sorted([*others, row], key=lambda row: NAMES.index(row["network"]))
        for measure in missing_of(row):
            start = time.perf_counter()
            try:
                row["measured"][measure] = MEASURES[measure](subject)
                row["skipped"].pop(measure, None)
            except zoo.Missing as missing:
                row["skipped"][measure] = str(missing)
                print(f"{name}: {measure}: skipped: {missing}", flush=True)
                continue
            results.save(kind, facts, rows, tables(rows))
            print(f"{name}: {measure}: {time.perf_counter() - start:.0f} s", flush=True)
    for table in tables(rows):
        print(f"\n{table.text()}")
    if rows and not options.tables:
        print(f"\nwritten to {results.save(kind, facts, rows, tables(rows))}")
    return 0


def missing_of(row: Mapping[str, Any]) -> list[str]:
    """The measurements that a row lacks; one that was skipped is tried again."""
    return [measure for measure in MEASURES if measure not in row["measured"]]


def _subject(
    name: str, row: dict[str, Any] | None, options: argparse.Namespace
) -> tuple[dict[str, Any], Subject]:
    """The row to fill in, and what to measure. Measurements of other files than those of now do not count."""
    net = network(name, zoo.shared_folder(options.shared), quick=options.quick)
    start = time.perf_counter()
    files = made(net, _OUT / ("quick" if options.quick else "full") / name, fresh=options.fresh)
    print(f"{name}: files: {time.perf_counter() - start:.0f} s", flush=True)
    fresh = {
        "network": name,
        "input": [*net.x.shape],
        "weights": net.weights,
        "variants": files.facts,
        "rounds": options.rounds,
        "measured": {},
        "skipped": {},
    }
    subject = Subject(files.paths, net.x, net.tested, options.rounds, options.cache)
    if row is None or options.fresh or any(row[key] != fresh[key] for key in ("variants", "rounds", "input")):
        row = fresh
    return row, subject


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.phone", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help=f"{' and '.join(QUICK)}, small images, 20 rounds"
    )
    parser.add_argument("--nets", nargs="+", choices=NAMES, default=[], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=None, help="default 120, with --quick 20")
    parser.add_argument("--fresh", action="store_true", help="cut, export and measure anew")
    parser.add_argument("--cache", default=None, help="of what the ARM64 count needs, see benchmarks.arm64")
    parser.add_argument("--tables", action="store_true", help="only print what is done")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    options.rounds = options.rounds or (20 if options.quick else 120)
    return options


if __name__ == "__main__":
    sys.exit(main())
