"""Accuracy of a CIFAR-10 ResNet right after pruning, by who chooses the ratios: heuristics or searches.

    python -m benchmarks.search [--quick] [--network NAME] [--fractions F ...] [--trials N] [--seeds N ...]

All are asked for the same fraction of the MACs, and the same channels of a group go first. Sensitivities and
searches ask for the accuracy on training images; what is shown is that on test images, which none of them has
seen. Nothing is trained. Two ways of asking: as cut, and with BatchNorm statistics measured anew. Finished
runs are kept in `benchmarks/results/`: the same command goes on after an interruption. `--tables` only prints
what is there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

import compressor as cp
from benchmarks import cifar, results, resuming, zoo
from benchmarks.accuracy_tables import accuracy_of, difference
from benchmarks.cifar import Data
from benchmarks.resuming import Row
from compressor.budget import Budget, Macs, by_ratio, by_score_per_mac
from compressor.search import LeastDrop, Sensitivity

STAGES = ("as cut", "norms anew")
_OUTPUTS = "least drop, outputs"
METHODS = ("uniform", "global", "per MAC", "least drop", _OUTPUTS, "Optuna")
_HEURISTICS: dict[str, Callable[[float], Budget]] = {
    "uniform": lambda fraction: Macs(fraction, order=by_ratio),
    "global": lambda fraction: Macs(fraction),
    "per MAC": lambda fraction: Macs(fraction, order=by_score_per_mac),
}
_CALIBRATION = 256
_DENSE = "the network as it is"


def main() -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(options.threads)
    try:
        folder = zoo.shared_folder(options.shared)
        model, data = cifar.load(
            folder, train=max(options.images, _CALIBRATION), test=options.test, name=options.network
        )
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    kind = f"search-{'quick' if options.quick else options.network.removesuffix('_cifar')}"
    facts = results.context("search", {**vars(options), "tables": None}, seeds=options.seeds)
    rows = resuming.kept(kind, _asked(options), under="asked")
    todo = [] if options.tables else [key for key in _keys(options) if not any(_key(r) == key for r in rows)]
    choosing = _Choosing(model, data, options)

    def keep(row: Row) -> None:
        rows.append(row)
        results.save(kind, facts, rows, tables(rows))

    resuming.go_on(len(rows), todo, lambda key: choosing.run(*key), keep, _line)
    resuming.show(kind, facts, rows, tables)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="64 images, one ratio, four trials, one fraction"
    )
    parser.add_argument("--network", default="resnet20_cifar", choices=cifar.CHECKPOINTS)
    parser.add_argument("--images", type=int, default=None, help="that are asked; default 400, quick 64")
    parser.add_argument("--test", type=int, default=None, help="default 1000, with --quick 100")
    parser.add_argument("--fractions", type=float, nargs="+", default=None, help="of MACs left: 0.7 0.5")
    parser.add_argument("--ratios", type=float, nargs="+", default=None, help="that sensitivities measure")
    parser.add_argument("--trials", type=int, default=None, help="of a search; default 50, quick 4")
    parser.add_argument("--stages", nargs="+", default=None, choices=STAGES, help="ways of asking")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="of searches: 0 1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables", action="store_true", help="only print what is done")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    small = options.quick
    options.images = options.images or (64 if small else 400)
    options.test = options.test or (100 if small else 1000)
    options.fractions = options.fractions or ([0.5] if small else [0.7, 0.5])
    options.ratios = options.ratios or ([0.5] if small else [0.1, 0.3, 0.5, 0.7, 0.9])
    options.trials = options.trials or (4 if small else 50)
    options.stages = options.stages or (["as cut"] if small else list(STAGES))
    options.seeds = options.seeds or ([0] if small else [0, 1])
    return options


# -- runs ----------------------------------------------------------------------------------------

Key = tuple[str, str, float, int]


def _keys(options: argparse.Namespace) -> list[Key]:
    """All runs; several seeds only where chance is at play."""
    keys: list[Key] = []
    for stage in options.stages:
        keys.append((stage, _DENSE, 1.0, 0))
        for fraction in options.fractions:
            for method in METHODS:
                seeds = options.seeds if method == "Optuna" else [0]
                keys += [(stage, method, fraction, seed) for seed in seeds]
    return keys


def _key(row: dict[str, Any]) -> Key:
    return row["stage"], row["method"], row["fraction"], row["seed"]


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    names = ("network", "images", "test", "ratios", "trials")
    return {name: getattr(options, name) for name in names}


def _line(row: Row) -> str:
    return f"{' '.join(map(str, _key(row)))}: {accuracy_of([row], row['stage'])}"


class _Choosing:
    """The network, its data, and the sensitivity that is measured once for each way of asking."""

    def __init__(self, model: nn.Module, data: Data, options: argparse.Namespace) -> None:
        self.model, self.data, self.options = model, data, options
        self.x = data.x_test[:1]
        self.scores = cp.score(cp.capture(model, self.x), cp.scoring.Norm(power=2))
        self.sensitivity = cache(self._sensitivity)

    def run(self, stage: str, method: str, fraction: float, seed: int) -> dict[str, Any]:
        """One way of choosing: accuracy on the images that were asked, and right answers on others."""
        needed = 0.0
        if method in ("least drop", _OUTPUTS, "Optuna"):
            needed = self.sensitivity(stage, outputs=method == _OUTPUTS)[
                1
            ]  # before the clock starts: it is shown beside it
        start = time.process_time()
        predicted = None
        if method == _DENSE:
            plan = self.scores.graph.plan([False] * self.scores.graph.n_units)
        elif method == "Optuna":
            plan = self._found(stage, fraction, seed)
        else:
            budget = self._budget(stage, method, fraction)
            plan = cp.plan(self.scores, budget)
            predicted = budget.predicted_drop(self.scores) if isinstance(budget, LeastDrop) else None
        cpu_s = time.process_time() - start
        small = cp.apply(self.model, plan)
        if plan.cuts:
            cp.verify(self.model, small, plan, self.x, graph=self.scores.graph)
        asked = self._evaluate(stage)(cp.apply(self.model, plan))
        self._settle_(stage, small)
        return {
            "stage": stage,
            "method": method,
            "fraction": fraction,
            "seed": seed,
            "asked": _asked(self.options),
            "macs_left": cp.profile(small, self.x).macs / cp.profile(self.model, self.x).macs,
            "quality": asked,
            "predicted_drop": predicted,
            "right": {stage: "".join("01"[right] for right in cifar.correct(small, self.data))},
            "cpu_s": round(cpu_s, 2),
            "sensitivity_cpu_s": round(needed, 2),
        }

    def _budget(self, stage: str, method: str, fraction: float) -> Budget:
        if method in ("least drop", _OUTPUTS):
            return LeastDrop(self.sensitivity(stage, outputs=method == _OUTPUTS)[0], Macs(fraction))
        return _HEURISTICS[method](fraction)

    def _sensitivity(self, stage: str, *, outputs: bool) -> tuple[Sensitivity, float]:
        start = time.process_time()
        found = cp.search.sensitivity(
            self.model,
            self.x,
            evaluate=self._fidelity(stage) if outputs else self._evaluate(stage),
            scorer=cp.scoring.Norm(power=2),
            ratios=self.options.ratios,
            name=f"accuracy {stage}",
        )
        return found, time.process_time() - start

    def _found(self, stage: str, fraction: float, seed: int) -> cp.Plan:
        found = cp.search.find(
            self.model,
            self.x,
            evaluate=self._evaluate(stage),
            budget=Macs(fraction),
            scorer=cp.scoring.Norm(power=2),
            sensitivity=self.sensitivity(stage, outputs=False)[0],
            starts=[_HEURISTICS["per MAC"](fraction)],
            trials=self.options.trials,
            seed=seed,
        )
        return found.plan

    def _evaluate(self, stage: str) -> Callable[[nn.Module], float]:
        images = self.data.x_train[: self.options.images]
        labels = self.data.y_train[: self.options.images]

        def accuracy(small: nn.Module) -> float:
            self._settle_(stage, small)
            with torch.no_grad():
                named = torch.cat([small(part).argmax(dim=1) for part in images.split(250)])
            return float((named == labels).float().mean())

        return accuracy

    def _fidelity(self, stage: str) -> Callable[[nn.Module], float]:
        images = self.data.x_train[: self.options.images]
        fidelity = cp.search.OutputFidelity(self.model, list(images.split(250)))

        def of_outputs(small: nn.Module) -> float:
            self._settle_(stage, small)
            return fidelity(small)

        return of_outputs

    def _settle_(self, stage: str, small: nn.Module) -> None:
        if stage == "norms anew":
            cifar.recalibrate_(small, self.data, examples=min(_CALIBRATION, self.options.images))


# -- tables --------------------------------------------------------------------------------------

_COLUMNS = (
    "ratios by",
    "MACs left",
    "test %",
    "against global",
    "asked %",
    "predicted drop",
    "CPU s",
    "runs",
)


def tables(rows: Sequence[dict[str, Any]]) -> list[results.Table]:
    """One table for each way of asking and fraction, with the network as it is on top."""
    found = []
    for stage in STAGES:
        for fraction in sorted({row["fraction"] for row in rows if row["fraction"] < 1}, reverse=True):
            mine = [row for row in rows if row["stage"] == stage and row["fraction"] in (1.0, fraction)]
            if any(row["fraction"] < 1 for row in mine):
                found.append(_table(stage, fraction, mine))
    return found


def _table(stage: str, fraction: float, rows: Sequence[dict[str, Any]]) -> results.Table:
    asked = rows[0]["asked"]
    by_method = {name: [row for row in rows if row["method"] == name] for name in (_DENSE, *METHODS)}
    lines = [_cells(name, stage, found, by_method["global"]) for name, found in by_method.items() if found]
    measured = max(row["sensitivity_cpu_s"] for row in rows)
    notes = (
        f"{asked['network']} (checkpoint), CIFAR-10. test: {asked['test']} images that nobody asked, ± "
        "standard error; against global: paired, image by image. Of several seeds their mean.",
        f"asked: accuracy on the {asked['images']} training images that sensitivity and search asked; the "
        "network knows them. least drop: by what groups lose alone, measured at ratios "
        f"{', '.join(map(str, asked['ratios']))} in {measured:.0f} CPU s. Optuna: {asked['trials']} trials, "
        "the first of them the others' choices. CPU s: choosing for one run, without that measurement. "
        f"{_OUTPUTS}: what is asked is how far the class scores are off (OutputFidelity), without labels.",
    )
    title = f"{100 * (1 - fraction):.0f} % of the MACs removed, {stage}"
    return results.Table(title, _COLUMNS, tuple(lines), notes)


def _cells(
    name: str, stage: str, found: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    against = "-"
    if base and name not in (_DENSE, "global"):
        against = difference(found, [{**base[0], "seed": row["seed"]} for row in found], stage=stage)
    predicted = None if name == _OUTPUTS else found[0]["predicted_drop"]  # points of accuracy
    qualities = [100 * row["quality"] for row in found]
    asked = f"{min(qualities):.1f}" + (f"-{max(qualities):.1f}" if len(qualities) > 1 else "")
    return (
        name,
        f"{sum(row['macs_left'] for row in found) / len(found):.3f}",
        accuracy_of(found, stage),
        against,
        asked,
        "-" if predicted is None else f"{100 * predicted:.1f}",
        f"{sum(row['cpu_s'] for row in found) / len(found):.1f}",
        str(len(found)),
    )


if __name__ == "__main__":
    sys.exit(main())
