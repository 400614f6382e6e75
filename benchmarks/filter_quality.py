"""What filter quality is worth for pruning: its terms, mixtures and budgets beside other criteria, CIFAR-10.

    python -m benchmarks.filter_quality [--quick] [--networks NAME ...] [--fractions F ...] [--tune F ...]

Channels inside blocks of published ResNet checkpoints, without training: as cut, and with BatchNorm
statistics measured anew; with `--tune`, fine-tuned from there, all methods alike. Every finished run is kept
in `benchmarks/results/`; a run that was interrupted goes on where it stopped. `--tables` only prints what is
there. HAM10000 is a matter of `benchmarks.imbalanced`, which has the same scorers among its methods.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import compressor as cp
from benchmarks import cifar, results, resuming, zoo
from benchmarks.cifar import Data
from benchmarks.resuming import Row
from compressor.budget import ByDegeneracy, Macs, by_ratio, by_score
from compressor.budget.ladder import Order
from compressor.core.graph import Graph, Mask
from compressor.scoring import (
    WHC,
    FilterQuality,
    GeometricMedian,
    Mixed,
    Norm,
    Product,
    Random,
    Scorer,
    Taylor,
)
from compressor.scoring.filter_quality import TermLike

DENSE = "dense"
REFERENCE = "Norm(2, power=2)"  # what `cp.prune` takes
INNER = ("conv1", "layer*.conv2")  # left whole: what shortcuts cross
_DISTINCT: tuple[TermLike, ...] = ("live", "norm", "distinct", "read")
_DEFAULT = Norm(2, power=2)

SCORERS: Mapping[str, Callable[[Data, int], Scorer]] = {
    REFERENCE: lambda data, seed: _DEFAULT,
    "Norm(1)": lambda data, seed: Norm(1),
    "Norm(2)": lambda data, seed: Norm(2),
    "GeometricMedian": lambda data, seed: GeometricMedian(),
    "WHC": lambda data, seed: WHC(),
    "Random": lambda data, seed: Random(seed),
    "Taylor": lambda data, seed: Taylor(data.batches(_CALIBRATION), F.cross_entropy),
    "FilterQuality": lambda data, seed: FilterQuality(),
    "FilterQuality, distinct": lambda data, seed: FilterQuality(terms=_DISTINCT),
    "FilterQuality, folded norm": lambda data, seed: FilterQuality(
        terms=("live", "folded norm", "distinct", "read")
    ),
    "live, read": lambda data, seed: FilterQuality(terms=("live", "read")),
    "norm": lambda data, seed: FilterQuality(terms="norm"),
    "folded norm": lambda data, seed: FilterQuality(terms="folded norm"),
    "distinct": lambda data, seed: FilterQuality(terms="distinct"),
    "original": lambda data, seed: FilterQuality(terms="original"),
    "diverse": lambda data, seed: FilterQuality(terms="diverse"),
    "norm, live, read": lambda data, seed: FilterQuality(terms=("norm", "live", "read")),
    "norm, distinct": lambda data, seed: FilterQuality(terms=("norm", "distinct")),
    "norm, original": lambda data, seed: FilterQuality(terms=("norm", "original")),
    "norm, diverse": lambda data, seed: FilterQuality(terms=("norm", "diverse")),
    f"FilterQuality, distinct + {REFERENCE}": lambda data, seed: Mixed(
        {FilterQuality(terms=_DISTINCT): 1, _DEFAULT: 1}
    ),
    f"FilterQuality, distinct x {REFERENCE}": lambda data, seed: Product(
        {FilterQuality(terms=_DISTINCT): 1, _DEFAULT: 1}
    ),
    f"(live, read) x {REFERENCE}": lambda data, seed: Product(
        {FilterQuality(terms=("live", "read"), normalize="none"): 1, _DEFAULT: 1}
    ),
    "FilterQuality, distinct + Taylor": lambda data, seed: Mixed(
        {FilterQuality(terms=_DISTINCT): 1, Taylor(data.batches(_CALIBRATION), F.cross_entropy): 1}
    ),
}
TERMS = tuple(name for name in SCORERS if name[0].islower())  # each alone, and on top of the norm
ORDERS: Mapping[str, Order] = {
    "global": by_score,
    "uniform": by_ratio,
    "degeneracy": ByDegeneracy(healthy=0.0),
    "half degeneracy": ByDegeneracy(healthy=0.5),
}
DEAD = "dead alone"  # no order: the dead units and nothing else, or as many of each group at random
# What other orders, and fine-tuning, are tried with.
_FEW = (REFERENCE, "FilterQuality, distinct", "Random")
_TUNED = (
    *(REFERENCE, "Norm(1)", "GeometricMedian", "WHC", "Random", "FilterQuality"),
    *("FilterQuality, distinct", f"FilterQuality, distinct + {REFERENCE}"),
)
STAGES = ("as_cut", "norms", "tuned")
_CALIBRATION = 512
_FRACTIONS = (0.5, 0.7, 0.3, 0.9)


def main() -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(options.threads)
    kind = "filter_quality-quick" if options.quick else "filter_quality"
    facts = results.context("filter_quality", vars(options), seeds=options.seeds)
    rows = resuming.kept(kind, schedule(options))
    todo = [] if options.tables else [key for key in keys(options) if not any(_is(row, key) for row in rows)]
    network = cache(lambda name: _Network(name, options))

    def keep(row: Row) -> None:
        rows[:] = [*(other for other in rows if not _is(row, {**other, "tuned": False})), row]
        if len(rows) % 10 == 0:  # the tables take longer than some of the runs
            results.save(kind, facts, rows, tables(rows))

    try:
        resuming.go_on(len(rows), todo, lambda key: network(key["network"]).run(key), keep, _line)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    resuming.show(kind, facts, rows, tables)
    return 0


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filter_quality", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two scorers, 64 images, half of the MACs")
    parser.add_argument("--networks", nargs="+", choices=list(cifar.CHECKPOINTS), default=None)
    parser.add_argument("--fractions", type=float, nargs="+", default=None, help="of MACs left")
    parser.add_argument(
        "--tune", type=float, nargs="*", default=None, help="fractions that are fine-tuned: 0.5"
    )
    parser.add_argument("--scorers", nargs="+", choices=list(SCORERS), default=None, help="default: all")
    parser.add_argument("--calibration", type=int, default=None, help="images for norms: 512, quick 64")
    parser.add_argument("--train", type=int, default=None, help="images of fine-tuning: 2000, quick 64")
    parser.add_argument("--test", type=int, default=None, help="images: 1000, quick 100")
    parser.add_argument("--epochs", type=int, default=1, help="of fine-tuning")
    parser.add_argument("--rate", type=float, default=0.01, help="first learning rate of fine-tuning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the random scorer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables", action="store_true", help="only print what is done")
    zoo.add_shared_option(parser)
    options = parser.parse_args(arguments)
    quick = options.quick
    options.networks = options.networks or (["resnet20_cifar"] if quick else list(cifar.CHECKPOINTS))
    options.fractions = options.fractions or ([0.5] if quick else list(_FRACTIONS))
    options.tune = [0.5] if options.tune is None else options.tune
    options.scorers = options.scorers or ([REFERENCE, "FilterQuality"] if quick else list(SCORERS))
    options.calibration = options.calibration or (64 if quick else _CALIBRATION)
    options.train = options.train or (64 if quick else 2000)
    options.test = options.test or (100 if quick else 1000)
    return options


# -- runs ----------------------------------------------------------------------------------------


def keys(options: argparse.Namespace) -> list[Row]:
    """What names each run; several seeds only where chance is at play."""
    found: list[Row] = []
    for network in options.networks:
        found.append({"network": network, "scorer": DENSE, "order": "-", "fraction": 1.0, "seed": 0})
        for scorer, seeds in (("dead units", options.seeds[:1]), ("Random", options.seeds)):
            own = {"network": network, "scorer": scorer, "order": DEAD, "fraction": 1.0}
            found += [{**own, "seed": seed} for seed in seeds]
        for fraction in options.fractions:
            for scorer in options.scorers:
                for order in ORDERS if scorer in _FEW else ("global",):
                    for seed in options.seeds if scorer == "Random" else options.seeds[:1]:
                        key = {"network": network, "scorer": scorer, "order": order}
                        found.append({**key, "fraction": fraction, "seed": seed})
    return [{**key, "tuned": _is_tuned(key, options)} for key in found]


def _is_tuned(key: Row, options: argparse.Namespace) -> bool:
    """Tuning is the long part: not for every scorer."""
    if key["scorer"] == DENSE:
        return bool(options.tune)
    return key["scorer"] in _TUNED and key["fraction"] in options.tune


def schedule(options: argparse.Namespace) -> Row:
    """What all runs of one file have in common."""
    return {name: getattr(options, name) for name in ("calibration", "train", "test", "epochs", "rate")}


def _is(row: Row, key: Row) -> bool:
    """Whether the row is the run of this key; one that was tuned is the untuned one, too."""
    names = ("network", "scorer", "order", "fraction", "seed")
    return all(row[name] == key[name] for name in names) and row["tuned"] >= key["tuned"]


class _Network:
    """One network and its data; what a scorer found holds for all fractions and orders."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        folder = zoo.shared_folder(options.shared)
        train = max(options.train, options.calibration)
        self.model, self.data = cifar.load(folder, train=train, test=options.test, name=name)
        self._options = options
        self._graph: Graph = cp.capture(self.model, self.data.x_test[:1])
        self._scores: dict[tuple[str, int], cp.scoring.Scores] = {}

    def run(self, key: Row) -> Row:
        """What one method leaves at each stage: right answers, and the cost."""
        row = {**key, "schedule": schedule(self._options)}
        small = self.model if key["scorer"] == DENSE else self._pruned(key)
        right = {"as_cut": _bits(small, self.data)}
        again = copy.deepcopy(small)
        cifar.recalibrate_(again, self.data, examples=self._options.calibration)
        right["norms"] = _bits(again, self.data)
        if key["tuned"]:
            n = self._options.train
            few = Data(self.data.x_train[:n], self.data.y_train[:n], *_NONE)
            cifar.fine_tune_(again, few, epochs=self._options.epochs, rate=self._options.rate, seed=0)
            right["tuned"] = _bits(again, self.data)
        x = self.data.x_test[:1]
        left = cp.profile(small, x).macs / cp.profile(self.model, x).macs
        return {**row, "macs_left": left, "right": right}

    def _pruned(self, key: Row) -> nn.Module:
        if key["order"] == DEAD:
            return cp.apply(self.model, self._graph.plan(self._dead(key)))
        which = key["scorer"], key["seed"]
        if which not in self._scores:
            self._scores[which] = cp.score(self._graph, SCORERS[key["scorer"]](self.data, key["seed"]))
        budget = Macs(key["fraction"], order=ORDERS[key["order"]], ignore=INNER)
        plan = cp.plan(self._scores[which], budget)
        small = cp.apply(self.model, plan)
        cp.verify(self.model, small, plan, self.data.x_test[:1], graph=self._graph)
        return small

    def _dead(self, key: Row) -> Mask:
        dead = cp.scoring.degeneracies(self._graph).dead
        if key["scorer"] != "Random":
            return dead
        others, generator = np.zeros_like(dead), np.random.default_rng(key["seed"])
        for cell in (cell for group in self._graph.groups for cell in group.cells):
            others[generator.choice(cell, int(dead[cell].sum()), replace=False)] = True
        return others


_NONE = (torch.empty(0), torch.empty(0, dtype=torch.long))


def _bits(model: nn.Module, data: Data) -> str:
    """Which test images are named rightly, as a hexadecimal number: the file stays small."""
    bits = "1" + "".join("01"[right] for right in cifar.correct(model, data))
    return f"{int(bits, 2):x}"


def answers(row: Row, stage: str) -> list[int]:
    """1 for each test image that is named rightly at a stage, else 0."""
    return [int(bit) for bit in f"{int(row['right'][stage], 16):b}"[1:]]


# -- tables --------------------------------------------------------------------------------------


def tables(rows: Sequence[Row]) -> list[results.Table]:
    """For each network: criteria, terms, budgets by fraction; then what fine-tuning leaves of it."""
    found = []
    for network in dict.fromkeys(row["network"] for row in rows):
        found += _dead_table(network, [row for row in rows if row["network"] == network])
        own = [row for row in rows if row["network"] == network and row["order"] != DEAD]
        others = [name for name in SCORERS if name not in TERMS]
        ways = [(name, "global") for name in others]
        terms = [(name, "global") for name in (REFERENCE, *TERMS, "FilterQuality", "Random")]
        orders = [(name, order) for name in _FEW for order in ORDERS]
        for title, methods in (("criteria", ways), ("terms", terms), ("budgets", orders)):
            for stage in ("norms", "as_cut") if title == "criteria" else ("norms",):
                found.append(_table(network, title, own, methods, stage))
        tuned = [(name, order) for name in _TUNED for order in ORDERS]
        found.append(_table(network, "fine-tuned", own, tuned, "tuned"))
    return [table for table in found if len(table.rows) > 1]


def _dead_table(network: str, rows: Sequence[Row]) -> list[results.Table]:
    """What removing dead units does, beside the same numbers of units at random."""
    whole = [row for row in rows if row["scorer"] == DENSE]
    known = [row for row in rows if row["order"] == DEAD]
    lines = []
    for row in [*whole, *known]:
        pairs = zip(answers(whole[0], "as_cut"), answers(row, "as_cut"), strict=True)
        changed = sum(before != after for before, after in pairs)
        cells = (f"{row['macs_left']:.3f}", _percent([row], "as_cut"), str(changed))
        lines.append((row["scorer"], f"{row['seed']}", *cells))
    columns = ("removed", "seed", "MACs left", "accuracy as cut", "answers changed")
    notes = (
        "Dead: every filter that writes the channel is sparse at 1 % (batch norms folded in), or every "
        "column that reads it; nothing is measured anew. At random: as many units of each group.",
    )
    title = f"{network}: only the dead units removed, or as many at random"
    return [results.Table(title, columns, tuple(lines), notes)] if whole and known else []


_WORDS = {"norms": "norms measured anew", "as_cut": "as cut", "tuned": "after fine-tuning"}


def _table(
    network: str, title: str, rows: Sequence[Row], methods: Iterable[tuple[str, str]], stage: str
) -> results.Table:
    """Accuracies by fraction; the last column is the mean gain over the reference in global order."""
    known = [row for row in rows if stage in row["right"]]
    fractions = sorted({row["fraction"] for row in known} - {1.0}, reverse=True)
    lines = []
    for scorer, order in methods:
        own = {f: _of(known, scorer, order, f) for f in fractions}
        if any(own.values()):
            base = {f: _of(known, REFERENCE, "global", f) for f in fractions}
            cells = [_percent(own[f], stage) for f in fractions]
            is_base = (scorer, order) == (REFERENCE, "global")
            seeds = str(max(map(len, own.values())))
            lines.append((scorer, order, *cells, "" if is_base else gain(own, base, stage), seeds))
    whole = [row for row in known if row["scorer"] == DENSE]
    first = (DENSE, "-", *([_percent(whole, stage)] * len(fractions)), "", "1")
    of = rows[0]["schedule"]
    notes = (
        f"{of['test']} test images of CIFAR-10, so that the standard error of one accuracy is at most "
        f"{50 / math.sqrt(of['test']):.1f} points; gain: the mean over the fractions of what a method has "
        f"more than {REFERENCE} in global order, paired image by image, ± its standard error over images.",
        f"norms: BatchNorm statistics from {of['calibration']} training images. Fine-tuning: {of['epochs']} "
        f"epoch on {of['train']} images, SGD from {of['rate']:g}, the same batches for all. Only channels "
        "between a block's two convolutions are cut.",
    )
    columns = ("scorer", "order", *(f"{f:g}" for f in fractions), "gain", "seeds")
    head = f"{network}, {title}, {_WORDS[stage]}: accuracy (%) by fraction of the MACs left"
    return results.Table(head, columns, (first, *lines) if whole else tuple(lines), notes, (0, 1))


def _of(rows: Sequence[Row], scorer: str, order: str, fraction: float) -> list[Row]:
    wanted = (scorer, order, fraction)
    return [row for row in rows if (row["scorer"], row["order"], row["fraction"]) == wanted]


def _percent(rows: Sequence[Row], stage: str) -> str:
    if not rows:
        return "-"
    return f"{100 * statistics.mean(statistics.mean(answers(row, stage)) for row in rows):.1f}"


def gain(mine: Mapping[float, list[Row]], base: Mapping[float, list[Row]], stage: str) -> str:
    """Mean points over the reference and their standard error over images; seeds, fractions averaged."""
    both = [fraction for fraction in mine if mine[fraction] and base[fraction]]
    if not both:
        return "-"
    gains = [_per_image(mine, both, stage), _per_image(base, both, stage)]
    apart = [a - b for a, b in zip(*gains, strict=True)]
    error = statistics.stdev(apart) / math.sqrt(len(apart))
    return f"{100 * statistics.mean(apart):+.1f} ± {100 * error:.1f}"


def _per_image(rows: Mapping[float, list[Row]], fractions: Sequence[float], stage: str) -> list[float]:
    by_fraction = [
        [statistics.mean(image) for image in zip(*(answers(row, stage) for row in rows[f]), strict=True)]
        for f in fractions
    ]
    return [statistics.mean(image) for image in zip(*by_fraction, strict=True)]


def _line(row: Row) -> str:
    shown = ", ".join(f"{stage} {_percent([row], stage)}" for stage in row["right"])
    head = f"{row['network']} {row['scorer']} {row['order']} {row['fraction']:g} seed {row['seed']}"
    return f"{head}: MACs {row['macs_left']:.3f}, {shown}"


if __name__ == "__main__":
    sys.exit(main())
