"""Accuracy of CIFAR-10 ResNets after pruning and fine-tuning against MACs, beside torch-pruning and ModelOpt.

    python -m benchmarks.accuracy [--quick] [--network NAME] [--tune] [--every] [--seeds N ...]

For each method: right after the cut, after BatchNorm statistics were measured anew (or the layers behind the
cut reconstructed), and after a training that is the same for all: the same images in the same order, crops
and flips. `--tune` compares `--rates` on training images held out. Every finished run is kept in
`benchmarks/results/`; a run that was interrupted goes on where it stopped. `--tables` only prints what is
there.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn
from torch.nn import functional as F

import compressor as cp
from benchmarks import cifar, modelopt, results, resuming, zoo
from benchmarks.accuracy_tables import DENSE, STAGES, method_of, rates_table, share, tables
from benchmarks.methods import LONG, ONCE, TUNING, Cutter, Method, chosen, fraction_of_macs
from benchmarks.resuming import Row
from compressor.training import Distillation, ModelLoss
from compressor.training.attaching import Loss

_RECOVERED_ON = 512
_HELD_OUT = 1000
_HALF = 0.5
Key = tuple[Method, float, int, float]


def main() -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(options.threads)
    try:
        folder = zoo.shared_folder(options.shared)
        model, data = cifar.load(folder, train=options.train, test=options.test, name=options.network)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    if options.tune:
        data = data.held_out(options.held)
    kind = _kind(options)
    given = {**vars(options), "held": None, "tables": None}
    facts = results.context("accuracy", given, seeds=options.seeds)
    rows = resuming.kept(kind, _schedule(options))
    todo = [] if options.tables else _todo(rows, options)
    shown = rates_table if options.tune else tables
    runs = Runs(model, data, options)

    def keep(row: Row) -> None:
        rows.append(row)
        results.save(kind, facts, rows, shown(rows))

    resuming.go_on(len(rows), todo, lambda key: runs.run(*key), keep, _line)
    resuming.show(kind, facts, rows, shown)
    return 1 if any("failure" in row and row["library"] == "ours" for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few methods, 128 images, half the MACs")
    parser.add_argument("--network", default="resnet20_cifar", choices=cifar.CHECKPOINTS)
    parser.add_argument("--epochs", type=int, default=1, help="more than 1: few methods, half the MACs")
    parser.add_argument("--train", type=int, default=None, help="default 2000, more epochs and --tune 4000")
    parser.add_argument("--test", type=int, default=None, help="default 1000, with --quick 100")
    parser.add_argument("--rate", type=float, default=0.01, help="first learning rate")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03], help="for --tune")
    parser.add_argument("--fractions", type=float, nargs="+", default=None, help="of MACs left: 0.5 0.3 0.7")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default 0 1 2, with --quick 0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", action="store_true", help="every scorer, every criterion of torch-pruning")
    parser.add_argument("--only", nargs="+", default=None, help="methods whose names hold one of these")
    parser.add_argument("--tune", action="store_true", help="compare --rates on training images held out")
    parser.add_argument("--tables", action="store_true", help="only print what is done")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    quick = options.quick
    longer = options.tune or options.epochs > 1
    options.train = options.train or (128 if quick else 4000 if longer else 2000)
    options.test = options.test or (100 if quick else 1000)
    options.held = options.train // 4 if quick else _HELD_OUT
    options.fractions = options.fractions or ([_HALF] if quick or longer else [_HALF, 0.3, 0.7])
    options.seeds = options.seeds or ([0] if quick or longer else [0, 1, 2])
    return options


def _kind(options: argparse.Namespace) -> str:
    """The name of the results of such runs."""
    network = "quick" if options.quick else options.network.removesuffix("_cifar")
    if options.tune:
        return f"accuracy-rates-{network}"
    return f"accuracy-{network}" + (f"-{options.epochs}-epochs" if options.epochs > 1 else "")


# -- runs ----------------------------------------------------------------------------------------


def keys(options: argparse.Namespace) -> list[Key]:
    """All runs, a seed of everything after the other; the network as it is tells what training alone does."""
    methods = chosen(quick=options.quick, every=options.every, deep=options.network == "resnet56_cifar")
    if options.tune or options.epochs > 1:
        methods = list(TUNING if options.tune else LONG)
    rates = options.rates if options.tune else [options.rate]
    found = [
        (method, fraction, seed, rate)
        for seed in options.seeds
        for fraction in options.fractions
        for method in (*([] if options.tune else [DENSE]), *methods)
        for rate in rates
        if method not in ONCE or fraction == _HALF
    ]
    dense = [(m, 1.0 if m == DENSE else fraction, seed, rate) for m, fraction, seed, rate in found]
    return list(dict.fromkeys(dense))


def _todo(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> list[Key]:
    """The runs that are not done; those of a peer that is not installed are left out, which is said."""
    done = {key_of(row) for row in rows}
    todo = [key for key in keys(options) if key not in done]
    if options.only:
        todo = [key for key in todo if any(text in str(key[0]) for text in options.only)]
    lacking = modelopt.missing()
    if lacking and any(key[0].library == "modelopt" for key in todo):
        print(f"skipped: {lacking}")
        todo = [key for key in todo if key[0].library != "modelopt"]
    return todo


def _schedule(options: argparse.Namespace) -> dict[str, Any]:
    found = {name: getattr(options, name) for name in ("network", "epochs", "train", "test")}
    # Rates that are compared belong to the runs; images held out are what is tested on.
    return {**found, "test": options.held} if options.tune else {**found, "rate": options.rate}


def key_of(row: dict[str, Any]) -> Key:
    """What names a run."""
    return method_of(row), row["fraction"], row["seed"], row["rate"]


class Runs:
    """A network and its data; what is cut alike is cut and tested once for all seeds of the training."""

    def __init__(self, model: nn.Module, data: cifar.Data, options: argparse.Namespace) -> None:
        self._model, self._data, self._options = model, data, options
        self._cutter = Cutter(model, data)
        self._cut: dict[tuple[Method, float, int], tuple[nn.Module, dict[str, str]]] = {}

    def run(self, method: Method, fraction: float, seed: int, rate: float) -> dict[str, Any]:
        """One method at one fraction: its cost and which test images it names rightly at each stage."""
        row: dict[str, Any] = {
            **vars(method),
            "fraction": fraction,
            "seed": seed,
            "rate": rate,
            "schedule": _schedule(self._options),
        }
        try:
            small, rights = self._recovered(method, fraction, seed)
        except Exception as error:  # a method that cannot do it is a result, too
            return {**row, "failure": f"{type(error).__name__}: {error}"}
        tuned = copy.deepcopy(small)
        self._train(tuned, method, rate, seed)
        rights = {**rights, "fine_tuned": _bits(tuned, self._data)}
        return {
            **row,
            "macs_left": fraction_of_macs(self._model, small, self._data.x_test[:1]),
            "params_left": _params(small) / _params(self._model),
            "right": rights,
        }

    def _recovered(self, method: Method, fraction: float, seed: int) -> tuple[nn.Module, dict[str, str]]:
        """The small network before training, and what it names rightly right after the cut and now."""
        key = method, fraction, seed if method.scorer == "Random" else 0
        if key not in self._cut:
            images = min(_RECOVERED_ON, self._options.train)
            small = (
                copy.deepcopy(self._model) if method == DENSE else self._cutter.cut(method, fraction, seed)
            )
            rights = {"one_shot": _bits(small, self._data)}
            if "reconstructed" in method.extra:
                unlabelled = [x for x, _ in self._data.batches(images)]
                cp.recovery.reconstruct_(small, self._model, unlabelled, hold=True)
            else:
                # Only the statistics of a net in eval mode differ: few steps would leave them between two.
                cifar.recalibrate_(small, self._data, examples=images)
            self._cut[key] = small, {**rights, "recovered": _bits(small, self._data)}
        return self._cut[key]

    def _train(self, net: nn.Module, method: Method, rate: float, seed: int) -> None:
        by_original = Distillation(self._model, F.cross_entropy)
        loss: Loss | ModelLoss = by_original if "distilled" in method.extra else F.cross_entropy
        cifar.fine_tune_(net, self._data, epochs=self._options.epochs, rate=rate, seed=seed, loss=loss)


def _bits(model: nn.Module, data: cifar.Data) -> str:
    return "".join("01"[right] for right in cifar.correct(model, data))


def _params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _line(row: dict[str, Any]) -> str:
    head = f"{method_of(row)} {row['fraction']:g} seed {row['seed']}: "
    if "failure" in row:
        return f"{head}{row['failure']}"
    parts = [f"{stage} {100 * share([row], stage):.1f}" for stage in STAGES]
    return f"{head}MACs {row['macs_left']:.3f}, {', '.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
