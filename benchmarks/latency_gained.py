"""Latency gained by pruning, beside torch-pruning, with the same share of the MACs removed.

    python -m benchmarks.latency_gained [--quick] [--nets NAME ...] [--fractions F ...] [--rounds N] [--fresh]

All cuts of a network run in turn in one process: as files in onnxruntime, with its default optimisation and
with EXTENDED, and as they are in PyTorch. Every measurement is saved when it is done, and the same command
goes on where it stopped; `--tables` only prints what is done.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

import compressor as cp
from benchmarks import results, zoo
from benchmarks.latency_cuts import Cuts, made
from benchmarks.latency_gained_tables import tables
from benchmarks.measuring import Row, complete
from benchmarks.phone_files import LEVELS
from benchmarks.phone_measures import timings
from benchmarks.phone_nets import SEED, network
from compressor.runtimes import Eager, OnnxRuntime, Runtime

NETS = ("resnet20_cifar", "resnet56_cifar", "vgg16_bn_cifar", "mobilenet_v2", "resnet50")
DEFAULT = NETS[:-1]  # the last one takes as long as all others
QUICK = ("resnet20_cifar",)
_OUT = zoo.ROOT / "out" / "latency_gained"


def main() -> int:
    """The exit code after the measurements that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kind = "latency_gained-quick" if options.quick else "latency_gained"
    facts = results.context("latency_gained", vars(options), seeds=[SEED])
    earlier = results.read(kind)
    rows: list[Row] = earlier["rows"] if earlier else []

    def save(found: list[Row]) -> None:
        results.save(kind, facts, _sorted(found), tables(_sorted(found)))

    for name in [] if options.tables else options.nets:
        for fraction in options.fractions:
            case = f"{name} {fraction:g}"
            rows = complete(
                *(rows, case, lambda n=name, f=fraction, c=case: _made(c, n, f, options), MEASURES, save),
                key="case",
                fresh=options.fresh,
            )
    for table in tables(_sorted(rows)):
        print(f"\n{table.text()}")
    return 0


def _made(case: str, name: str, fraction: float, options: argparse.Namespace) -> tuple[Row, Cuts]:
    net = network(name, zoo.shared_folder(options.shared), quick=options.quick)
    if options.quick and net.tested is not None:
        images, labels = net.tested
        net = replace(net, batches=net.batches[:1], tested=(images[:100], labels[:100]))
    quick = {"row_rounds": 2, "whole_rounds": 7, "path": _OUT / "quick.json"} if options.quick else {}
    _OUT.mkdir(parents=True, exist_ok=True)
    table = cp.profiling.latency_table(cp.capture(net.model, net.x), **quick)
    folder = _OUT / ("quick" if options.quick else "full") / f"{name}-{fraction:g}"
    cuts = made(net, fraction, table, folder, rounds=options.rounds)
    row = {
        "case": case,
        "network": name,
        "fraction": fraction,
        "input": [*net.x.shape],
        "weights": net.weights,
        "images": {
            "tested": 0 if net.tested is None else len(net.tested[1]),
            "norms": sum(map(len, net.batches)),
        },
        "rounds": options.rounds,
        "cuts": cuts.facts,
    }
    return row, cuts


# -- measures ------------------------------------------------------------------------------------


def _on_file(runtime: Runtime) -> Callable[[Cuts], Any]:
    return lambda cuts: timings(cuts.paths, cuts.net.x, runtime, cuts.rounds)


def _eager(cuts: Cuts) -> Any:
    return timings(cuts.models, cuts.net.x, Eager(), cuts.rounds)


def _accuracy(cuts: Cuts) -> dict[str, dict[str, float]]:
    """The share of test images named rightly, as cut and with norms measured anew on unlabelled images."""
    if cuts.net.tested is None:
        return {}
    found = {}
    for name, model in cuts.models.items():
        settled = copy.deepcopy(model)
        cp.recovery.reestimate_batch_norm_(settled, cuts.net.batches)
        found[name] = {"as_cut": _share(model, cuts), "norms": _share(settled.eval(), cuts)}
    return found


def _share(model: nn.Module, cuts: Cuts) -> float:
    assert cuts.net.tested is not None
    images, labels = cuts.net.tested
    with torch.no_grad():
        named = torch.cat([model(x).argmax(dim=1) for x in images.split(250)])
    return float((named == labels).float().mean())


MEASURES: dict[str, Callable[[Cuts], Any]] = {
    **{level: _on_file(OnnxRuntime(optimization=optimization)) for level, optimization in LEVELS.items()},
    "eager": _eager,
    "accuracy": _accuracy,
}


def _sorted(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (NETS.index(row["network"]), -row["fraction"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency_gained", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)}, few rounds")
    parser.add_argument(
        "--nets", nargs="+", choices=NETS, default=None, metavar="NAME", help=f"default: {', '.join(DEFAULT)}"
    )
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.5], metavar="F")
    parser.add_argument("--rounds", type=int, default=None, help="default 40, with --quick 10")
    parser.add_argument("--fresh", action="store_true", help="cut, export and measure anew")
    parser.add_argument("--tables", action="store_true", help="only print what is done")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    options.rounds = options.rounds or (10 if options.quick else 40)
    options.nets = options.nets or [*(QUICK if options.quick else DEFAULT)]
    return options


if __name__ == "__main__":
    sys.exit(main())
