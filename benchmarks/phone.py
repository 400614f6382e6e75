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
import warnings
from pathlib import Path

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import results, zoo
from benchmarks.measuring import Row, complete
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
    rows: list[Row] = earlier["rows"] if earlier else []

    def save(found: list[Row]) -> str:
        found = sorted(found, key=lambda row: NAMES.index(row["network"]))
        return results.save(kind, facts, found, tables(found))

    for name in [] if options.tables else options.nets or (QUICK if options.quick else NAMES):
        rows = complete(rows, name, lambda n=name: _made(n, options), MEASURES, save, fresh=options.fresh)
    for table in tables(rows):
        print(f"\n{table.text()}")
    if rows and not options.tables:
        print(f"\nwritten to {save(rows)}")
    return 0


def _made(name: str, options: argparse.Namespace) -> tuple[Row, Subject]:
    """The facts of a network's row, and what to measure."""
    net = network(name, zoo.shared_folder(options.shared), quick=options.quick)
    files = made(net, _OUT / ("quick" if options.quick else "full") / name, fresh=options.fresh)
    row = {
        "network": name,
        "input": [*net.x.shape],
        "weights": net.weights,
        "variants": files.facts,
        "rounds": options.rounds,
    }
    return row, Subject(files.paths, net.x, net.tested, options.rounds, options.cache)


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
