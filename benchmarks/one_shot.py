"""Accuracy of ResNet-56 on CIFAR-10 right after pruning, without training, for every scorer.

    python -m benchmarks.one_shot [--quick] [--calibration N] [--fractions F ...] [--seeds N ...]

For each method and fraction of the MACs: as cut, with BatchNorm statistics measured anew, and with the
layers behind the cut reconstructed. Both read the same unlabelled training images. Every finished run is
kept in `benchmarks/results/`; a run that was interrupted goes on where it stopped. `--tables` only prints
what is there.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn
from torch.nn import functional as F

import compressor as cp
from benchmarks import cifar, methods, results, resuming, zoo
from benchmarks.accuracy_tables import DENSE, accuracy_of, difference, share
from benchmarks.cifar import Data
from benchmarks.methods import Method, budget_of, fraction_of_macs
from benchmarks.resuming import Row
from compressor.core.graph import Graph
from compressor.scoring import (
    CHIP,
    WHC,
    APoZ,
    BetaRank,
    FilterQuality,
    GateTaylor,
    GraSP,
    Hessian,
    HRank,
    MeanActivation,
    ReconstructionError,
    Scorer,
    Scores,
    SynFlow,
)

STAGES = ("as_cut", "norms", "reconstructed")
_CALIBRATION = 512
_FEW = 128  # images for criteria that take singular values of every map

SCORERS: dict[str, Callable[[Data, int, int], Scorer]] = {
    **{name: (lambda data, n, seed, make=make: make(data, seed)) for name, make in methods.SCORERS.items()},
    "WHC": lambda data, n, seed: WHC(),
    "FilterQuality (distinct)": lambda data, n, seed: FilterQuality(
        terms=("live", "norm", "distinct", "read")
    ),
    "SynFlow": lambda data, n, seed: SynFlow(),
    "GateTaylor": lambda data, n, seed: GateTaylor(data.batches(n), F.cross_entropy),
    "Hessian": lambda data, n, seed: Hessian(data.batches(n), F.cross_entropy),
    "GraSP": lambda data, n, seed: GraSP(data.batches(n), F.cross_entropy),
    "APoZ": lambda data, n, seed: APoZ(data.batches(n)),
    "MeanActivation": lambda data, n, seed: MeanActivation(data.batches(n)),
    "HRank": lambda data, n, seed: HRank(data.batches(min(n, _FEW))),
    "CHIP": lambda data, n, seed: CHIP(data.batches(min(n, _FEW))),
    "BetaRank": lambda data, n, seed: BetaRank(data.batches(n)),
    "ReconstructionError": lambda data, n, seed: ReconstructionError(data.batches(n)),
}
_OURS = Method("ours", "ReconstructionError", "inner", "per MAC")


def main() -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(options.threads)
    try:
        folder = zoo.shared_folder(options.shared)
        model, data = cifar.load(folder, train=max(options.calibration, _CALIBRATION), test=options.test)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    kind = "one_shot-quick" if options.quick else "one_shot"
    if not options.quick and options.calibration != _CALIBRATION:
        kind = f"one_shot-{options.calibration}-images"
    facts = results.context("one_shot", vars(options), seeds=options.seeds)
    rows = resuming.kept(kind, _images(options), under="images")
    todo = [] if options.tables else [key for key in _keys(options) if not any(_is(row, key) for row in rows)]
    pruning = _Pruning(model, data, options)

    def keep(row: Row) -> None:
        rows.append(row)
        results.save(kind, facts, rows, tables(rows))

    resuming.go_on(len(rows), todo, partial(_run, pruning), keep, _line)
    resuming.show(kind, facts, rows, tables)
    return 1 if any("failure" in row and row["library"] == "ours" for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_shot", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three methods, 64 images, half of the MACs")
    parser.add_argument("--calibration", type=int, default=None, help="images; default 512, with --quick 64")
    parser.add_argument("--test", type=int, default=None, help="default 1000, with --quick 100")
    parser.add_argument("--fractions", type=float, nargs="+", default=None, help="of MACs left")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the random scorer")
    parser.add_argument("--scorers", nargs="+", choices=SCORERS, help="only these")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables", action="store_true", help="only print what is done")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    options.calibration = options.calibration or (64 if options.quick else _CALIBRATION)
    options.test = options.test or (100 if options.quick else 1000)
    options.fractions = options.fractions or ([0.5] if options.quick else [0.5, 0.3, 0.7])
    return options


# -- runs ----------------------------------------------------------------------------------------

Key = tuple[Method, float, int]


def chosen(*, quick: bool) -> list[Method]:
    """The methods: every scorer on the inner channels, then what order and scope do, then theirs."""
    names = ["Norm(2)"] if quick else [name for name in SCORERS if name != "ReconstructionError"]
    found = [_OURS, *(Method("ours", name, "inner", "global") for name in names)]
    theirs = [Method("torch-pruning", "Norm(2)", "inner", "uniform")]
    if not quick:
        found += [
            Method("ours", "ReconstructionError", "inner", "global"),
            Method("ours", "ReconstructionError", "inner", "uniform"),
            Method("ours", "ReconstructionError", "all", "per MAC"),
            *(Method("ours", name, "inner", "per MAC") for name in ("Norm(2)", "Taylor")),
            *(Method("ours", "Norm(2)", scope, order) for scope, order in _OF_NORM),
        ]
        theirs += [Method("torch-pruning", "Norm(2)", "inner", "global")]
        theirs += [Method("torch-pruning", "Taylor", "inner", order) for order in ("uniform", "global")]
    return found + theirs


_OF_NORM = (("inner", "uniform"), ("all", "global"), ("all", "uniform"))


def _keys(options: argparse.Namespace) -> list[Key]:
    """All runs, the network as it is first; several seeds only where chance is at play."""
    keys: list[Key] = [(DENSE, 1.0, 0)]
    for fraction in options.fractions:
        for method in chosen(quick=options.quick):
            if options.scorers and method.scorer not in options.scorers:
                continue
            seeds = options.seeds if method.scorer == "Random" else options.seeds[:1]
            keys += [(method, fraction, seed) for seed in seeds]
    return keys


def _images(options: argparse.Namespace) -> dict[str, int]:
    """How many images runs of one file read and test."""
    return {"calibration": options.calibration, "test": options.test}


def _is(row: dict[str, Any], key: Key) -> bool:
    return (_method(row), row["fraction"], row["seed"]) == key


def _method(row: dict[str, Any]) -> Method:
    return Method(row["library"], row["scorer"], row["scope"], row["order"])


class _Pruning:
    """The network and its data; what a scorer found holds for all fractions."""

    def __init__(self, model: nn.Module, data: Data, options: argparse.Namespace) -> None:
        self.model, self.data = model, data
        self.calibration, self.test = options.calibration, options.test
        self._graph: Graph | None = None
        self._scores: dict[tuple[str, int], Scores] = {}

    @property
    def batches(self) -> list[torch.Tensor]:
        """The images that recovery reads, without their labels."""
        return [images for images, _ in self.data.batches(self.calibration)]

    def small(self, method: Method, fraction: float, seed: int) -> nn.Module:
        """The pruned network; one of ours is proved to be what its plan says."""
        x = self.data.x_test[:1]
        if method.library != "ours":
            return methods.prune(self.model, x, method, fraction=fraction, data=self.data, seed=seed)
        if self._graph is None:
            self._graph = cp.capture(self.model, x)
        key = method.scorer, seed
        if key not in self._scores:
            scorer = SCORERS[method.scorer](self.data, self.calibration, seed)
            self._scores[key] = cp.score(self._graph, scorer)
        plan = cp.plan(self._scores[key], budget_of(method, fraction))
        small = cp.apply(self.model, plan)
        cp.verify(self.model, small, plan, x, graph=self._graph)
        return small


def _run(pruning: _Pruning, key: Key) -> dict[str, Any]:
    """One method at one fraction: its cost and which test images it names rightly at each stage."""
    method, fraction, seed = key
    images = {"calibration": pruning.calibration, "test": pruning.test}
    row: dict[str, Any] = {**vars(method), "fraction": fraction, "seed": seed, "images": images}
    if method == DENSE:
        right = _bits(pruning.model, pruning.data)
        return {**row, "macs_left": 1.0, "right": dict.fromkeys(STAGES, right)}
    try:
        small = pruning.small(method, fraction, seed)
        rights = {"as_cut": _bits(small, pruning.data)}
        again = copy.deepcopy(small)
        cp.recovery.reestimate_batch_norm_(again, pruning.batches)
        rights["norms"] = _bits(again, pruning.data)
        start = time.process_time()
        if method.library == "ours":
            cp.recovery.reconstruct_(small, pruning.model, pruning.batches, hold=True)
            rights["reconstructed"] = _bits(small, pruning.data)
            row["reconstruction_cpu_s"] = round(time.process_time() - start, 1)
    except Exception as error:  # a method that cannot do it is a result, too
        return {**row, "failure": f"{type(error).__name__}: {error}"}
    left = fraction_of_macs(pruning.model, small, pruning.data.x_test[:1])
    return {**row, "macs_left": left, "right": rights}


def _bits(model: nn.Module, data: Data) -> str:
    return "".join("01"[right] for right in cifar.correct(model, data))


# -- tables --------------------------------------------------------------------------------------

_COLUMNS = (
    *("library", "scorer", "may cut", "order", "MACs left"),
    *("as cut %", "norms anew %", "reconstructed %", "lost", "seeds", "note"),
)


def tables(rows: Sequence[dict[str, Any]]) -> list[results.Table]:
    """One table for each fraction, with the network as it is on top, the best first."""
    dense = [row for row in rows if _method(row) == DENSE]
    fractions = sorted({row["fraction"] for row in rows if _method(row) != DENSE}, reverse=True)
    return [_table(f, dense, [row for row in rows if row["fraction"] == f]) for f in fractions]


def _table(fraction: float, dense: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> results.Table:
    groups: dict[Method, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_method(row), []).append(row)
    ranked = sorted(groups.items(), key=lambda item: _recovered(item[1]), reverse=True)
    lines = [_cells(method, found, dense) for method, found in [(DENSE, [*dense]), *ranked] if found]
    images = [*dense, *rows][0]["images"]
    notes = (
        f"ResNet-56 (checkpoint), CIFAR-10: {images['test']} test images, {images['calibration']} unlabelled "
        "training images for norms and reconstruction. ± is the standard error over the test images; `lost` "
        "(reconstructed, or else norms anew, against the network as it is) is paired, image by image.",
        "all: any layer; inner: only between a block's two convolutions. global: lowest score first; per "
        "MAC: lowest score for each MAC first; uniform: all layers alike. Taylor, GateTaylor, Fisher, "
        "Hessian and GraSP read labels. torch-pruning has no plan to reconstruct from.",
    )
    title = f"{100 * (1 - fraction):.0f} % of the MACs removed, no training"
    return results.Table(title, _COLUMNS, tuple(lines), notes, (0, 1, 2, 3, -1))


def _cells(
    method: Method, found: Sequence[dict[str, Any]], dense: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    done = [row for row in found if "right" in row]
    stages = [stage for stage in STAGES if done and stage in done[0]["right"]]
    lost = "-"
    if done and dense and method != DENSE:
        whole = [{**dense[0], "seed": row["seed"]} for row in done]
        lost = difference(whole, done, stage=stages[-1])
    return (
        *(method.library, method.scorer, method.scope, method.order),
        f"{sum(row['macs_left'] for row in done) / len(done):.3f}" if done else "-",
        *(accuracy_of(done, stage) if stage in stages else "-" for stage in STAGES),
        lost,
        str(len(done)),
        "; ".join(row["failure"] for row in found if "failure" in row),
    )


def _recovered(rows: Sequence[dict[str, Any]]) -> float:
    done = [row for row in rows if "right" in row]
    return share(done, list(done[0]["right"])[-1]) if done else -1.0


def _line(row: dict[str, Any]) -> str:
    head = f"{_method(row)} {row['fraction']:g} seed {row['seed']}: "
    if "failure" in row:
        return f"{head}{row['failure']}"
    parts = [f"{stage} {100 * share([row], stage):.1f}" for stage in row["right"]]
    return f"{head}MACs {row['macs_left']:.3f}, {', '.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
