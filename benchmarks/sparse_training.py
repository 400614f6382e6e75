"""MaskSparsity beside global sparse training, on ResNet-20 and CIFAR-10 at equal MACs.

    python -m benchmarks.sparse_training [--quick] [--epochs N] [--seeds N ...]

Every method trains the checkpoint for the same epochs on the same images, is cut to the same MACs, and is
fine-tuned alike. MaskSparsity is given its plan before, the others make theirs afterwards. Measured: the
scales of the channels that stay, accuracy before and after the cut and after fine-tuning, how far the cut
moves the logits, and what a sparse step costs beside a plain one. Finished runs are kept in
`benchmarks/results/`; a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from benchmarks import cifar, results, resuming, zoo
from benchmarks.resuming import Row
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.errors import CompressorError
from compressor.profiling import cost
from compressor.recovery import remove_silenced
from compressor.training import Recipe, fine_tune_, step_rates
from compressor.training.sparsity import (
    Decay,
    Form,
    MaskSparsity,
    NetworkSlimming,
    Proximal,
    Regularizer,
    Subgradient,
    Within,
    silence_,
    silenced,
)

NETWORK = "resnet20_cifar"
MOMENTUM = 0.9
# Masked channels have to be at zero after this part of the steps; in the rest the others adapt.
PART = 0.5
# Oscillations around zero up to this size are set to zero before the cut; all else would be a failure.
CLOSE = 1e-2
STAGES = ("trained", "cut", "fine_tuned")


@dataclass(frozen=True)
class Method:
    """Where the plan comes from, and the regulariser for (plan, graph, learning rates of all steps).

    The plan is that of the weights' norms "before" training, that of the scales "after" it, or that of
    another method's run with the same seed. "first": it is that before, and is applied there and then.
    """

    plan: str
    regularizer: Callable[[Plan, Graph, list[float]], Regularizer | None]


def _slimming(push: float) -> Method:
    def made(plan: Plan, graph: Graph, rates: list[float]) -> Regularizer:
        return NetworkSlimming(graph, Subgradient(Within(rates, momentum=MOMENTUM, margin=push)))

    return Method("after", made)


def _masked(form: Callable[[list[float]], Form], plan: str = "before", *, with_shift: bool = True) -> Method:
    def made(plan: Plan, graph: Graph, rates: list[float]) -> Regularizer:
        first = rates[: max(1, int(PART * len(rates)))]
        return MaskSparsity(plan, graph, form(first), shift=Decay(len(first)) if with_shift else None)

    return Method(plan, made)


def _proximal(rates: list[float]) -> Form:
    return Proximal(Within(rates))


METHODS = {
    "cut first": Method("first", lambda plan, graph, rates: None),
    "no penalty": Method("before", lambda plan, graph, rates: None),
    "slimming, push 0.1": _slimming(0.1),
    "slimming, push 0.4": _slimming(0.4),
    "mask, subgradient": _masked(lambda rates: Subgradient(Within(rates, momentum=MOMENTUM))),
    "mask, proximal": _masked(_proximal),
    "mask, decay": _masked(lambda rates: Decay(len(rates))),
    "mask, proximal, shift folded": _masked(_proximal, with_shift=False),
    "mask of slimming, proximal": _masked(_proximal, "slimming, push 0.4"),
}
QUICK = ("no penalty", "slimming, push 0.4", "mask, proximal")
TIMED = ("slimming, push 0.1", "mask, subgradient", "mask, proximal", "mask, decay")


def main() -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(options.threads)
    try:
        folder = zoo.shared_folder(options.shared)
        model, data = cifar.load(folder, train=options.train, test=options.test, name=NETWORK)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    kind = "sparse_training-quick" if options.quick else "sparse_training"
    facts = results.context("sparse_training", vars(options), seeds=options.seeds)
    rows = _done(kind, options)
    keys = [(name, seed) for seed in options.seeds for name in _chosen(options)]
    todo = [key for key in keys if not any((row["method"], row["seed"]) == key for row in rows["runs"])]
    if not rows["steps"]:
        rows["steps"] = step_times(model, data, options.rounds)

    def row_of(key: tuple[str, int]) -> Row:
        facts = {"method": key[0], "seed": key[1], "schedule": _schedule(options)}
        return {**facts, **run(model, data, *key, options, rows["runs"])}

    def keep(row: Row) -> None:
        rows["runs"].append(row)
        results.save(kind, facts, rows, tables(rows))

    resuming.go_on(len(rows["runs"]), todo, row_of, keep, _line)
    resuming.show(kind, facts, rows, tables)
    return 1 if any("failure" in row for row in rows["runs"]) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse_training", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three methods, 256 images, one epoch each")
    parser.add_argument("--epochs", type=int, default=None, help="of sparse training, default 4 (quick 1)")
    parser.add_argument("--tuning", type=int, default=None, help="epochs of fine-tuning, default 2 (quick 1)")
    parser.add_argument("--train", type=int, default=None, help="default 4000, with --quick 256")
    parser.add_argument("--test", type=int, default=None, help="default 1000, with --quick 250")
    parser.add_argument("--rate", type=float, default=0.02, help="first learning rate of sparse training")
    parser.add_argument("--fraction", type=float, default=0.5, help="of MACs left")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default 0 1 2, with --quick 0")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=None, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=None, help="pairs of steps that are timed")
    parser.add_argument("--threads", type=int, default=1)
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    small = options.quick
    options.epochs = options.epochs or (1 if small else 4)
    options.tuning = options.tuning or (1 if small else 2)
    options.train = options.train or (256 if small else 4000)
    options.test = options.test or (250 if small else 1000)
    options.seeds = options.seeds or ([0] if small else [0, 1, 2])
    options.rounds = options.rounds or (5 if small else 40)
    return options


def _chosen(options: argparse.Namespace) -> Sequence[str]:
    """The methods in the order of the table, in which a mask of another run comes after that."""
    asked = options.methods or (QUICK if options.quick else METHODS)
    return [name for name in METHODS if name in asked]


def _schedule(options: argparse.Namespace) -> dict[str, Any]:
    names = ("epochs", "tuning", "train", "test", "rate", "fraction")
    return {name: getattr(options, name) for name in names}


def _done(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Earlier runs; they count only if they were trained and tested alike."""
    earlier = results.read(kind)
    if earlier is None:
        return {"runs": [], "steps": {}}
    rows: dict[str, Any] = earlier["rows"]
    resuming.require_alike(kind, (row["schedule"] for row in rows["runs"]), _schedule(options))
    return rows


# -- runs ----------------------------------------------------------------------------------------


def run(
    model: nn.Module,
    data: cifar.Data,
    name: str,
    seed: int,
    options: argparse.Namespace,
    earlier: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """One method: scales, cost and accuracy at each stage, and how far the cut moved the logits."""
    method = METHODS[name]
    net = copy.deepcopy(model)
    graph = cp.capture(net, data.x_test[:1])
    budget = cp.budget.Macs(options.fraction, max_ratio=0.8)
    plan = _plan_before(method, graph, budget, seed, earlier)
    recipe = Recipe(epochs=options.epochs, lr=options.rate, seed=seed)
    batches = cifar.Augmented(data, seed)
    if method.plan == "first":
        return _cut_first(model, graph, plan, batches, recipe, data, options)
    regularizer = method.regularizer(plan, graph, step_rates(recipe, len(batches)))
    fine_tune_(net, batches, F.cross_entropy, recipe, regularizer=regularizer, progress=False)
    if method.plan == "after":
        plan = cp.plan(cp.score(graph, cp.scoring.BatchNormScale()), budget)
    trained, logits = cifar.correct(net, data), logits_of(net, data)
    removed = cost.removed_by(graph, plan)
    facts = {
        "macs_left": cost.macs(graph).total(removed) / cost.macs(graph).total(),
        "planned_scale": silenced(plan, graph).largest,
        "removed": np.flatnonzero(removed).tolist(),
        **scales(model, net, plan),
    }
    try:
        if isinstance(regularizer, MaskSparsity):
            silence_(plan, graph, tolerance=CLOSE)
            removal = remove_silenced(plan, graph, data.batches(256))
            small, facts["border"] = removal.model, removal.border
        else:
            small = cp.apply(net, plan)
    except CompressorError as error:
        return {**facts, "failure": f"{type(error).__name__}: {error}"}
    facts["logit_change"] = float((logits_of(small, data) - logits).abs().max())
    cut = cifar.correct(small, data)
    return {**facts, "right": _rights(trained, cut, _tuned(small, data, seed, options))}


def _cut_first(
    model: nn.Module,
    graph: Graph,
    plan: Plan,
    batches: cifar.Augmented,
    recipe: Recipe,
    data: cifar.Data,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The same epochs without sparse training: all of them after the cut."""
    small = cp.apply(graph.model, plan)
    cut = cifar.correct(small, data)
    fine_tune_(small, batches, F.cross_entropy, recipe, progress=False)
    trained = cifar.correct(small, data)
    removed = cost.removed_by(graph, plan)
    norms = [m for m in small.modules() if isinstance(m, nn.BatchNorm2d)]
    return {
        "macs_left": cost.macs(graph).total(removed) / cost.macs(graph).total(),
        "planned_scale": None,
        "logit_change": None,
        "removed": np.flatnonzero(removed).tolist(),
        "kept_scale": float(torch.cat([norm.weight.detach() for norm in norms]).abs().mean()),
        "kept_scale_before": scales(model, model, plan)["kept_scale_before"],
        "right": _rights(trained, cut, _tuned(small, data, recipe.seed, options)),
    }


def _tuned(small: nn.Module, data: cifar.Data, seed: int, options: argparse.Namespace) -> list[bool]:
    """Which images the network names rightly after the fine-tuning that all methods get."""
    tuning = Recipe(epochs=options.tuning, lr=options.rate / 2, seed=seed)
    fine_tune_(small, cifar.Augmented(data, seed + 1000), F.cross_entropy, tuning, progress=False)
    return cifar.correct(small, data)


def _rights(*stages: list[bool]) -> dict[str, str]:
    return {stage: "".join("01"[bit] for bit in right) for stage, right in zip(STAGES, stages, strict=True)}


def _plan_before(
    method: Method, graph: Graph, budget: cp.budget.Budget, seed: int, earlier: Sequence[dict[str, Any]]
) -> Plan:
    """The plan that training is given: of norms, or of another method's run."""
    if method.plan in ("first", "before", "after"):
        return cp.plan(cp.score(graph, cp.scoring.Norm()), budget)
    (row,) = (row for row in earlier if (row["method"], row["seed"]) == (method.plan, seed))
    removed = np.zeros(graph.n_units, dtype=bool)
    removed[row["removed"]] = True
    return graph.plan(removed)


def scales(model: nn.Module, net: nn.Module, plan: Plan) -> dict[str, float]:
    """The mean |γ| of the channels that stay: after training, and of the same ones in the checkpoint."""
    kept = {cut.tensor: list(cut.keep) for cut in plan.cuts if cut.axis == 0}
    found = []
    for network in (net, model):
        norms = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
        rows = [m.weight.detach()[kept.get(f"{n}.weight", slice(None))] for n, m in norms]
        found.append(float(torch.cat(rows).abs().mean()))
    return {"kept_scale": found[0], "kept_scale_before": found[1]}


@torch.no_grad()
def logits_of(model: nn.Module, data: cifar.Data) -> Tensor:
    """The outputs for all test images, in eval mode."""
    model.eval()
    return torch.cat([model(x) for x in data.x_test.split(250)])


def step_times(model: nn.Module, data: cifar.Data, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU seconds of a sparse and of a plain training step by method, in pairs that take turns."""
    found = {}
    for name in TIMED:
        net = copy.deepcopy(model).train()
        graph = cp.capture(net, data.x_test[:1])
        plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Macs(0.5, max_ratio=0.8))
        regularizer = METHODS[name].regularizer(plan, graph, [1e-3] * (2 * rounds + 2))
        assert regularizer is not None
        optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=MOMENTUM)
        step = partial(_step, net, optimizer, data.x_train[:64], data.y_train[:64])
        step(regularizer), step(None)
        pairs = []
        for number in range(rounds):
            order: list[Regularizer | None] = [regularizer, None] if number % 2 else [None, regularizer]
            times = {by is regularizer: step(by) for by in order}
            pairs.append((times[True], times[False]))
        found[name] = pairs
    return found


def _step(
    net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, by: Regularizer | None
) -> float:
    start = time.process_time()
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    if by is not None:
        by.before_step(optimizer)
    optimizer.step()
    if by is not None:
        by.after_step(optimizer)
    return time.process_time() - start


# -- tables --------------------------------------------------------------------------------------


def tables(rows: dict[str, Any]) -> list[results.Table]:
    """What the methods come to, and what a step costs."""
    made = []
    if rows["runs"]:
        made.append(_results_table(rows["runs"]))
    if rows["steps"]:
        made.append(_steps_table(rows["steps"]))
    return made


_COLUMNS = (
    *("method", "MACs left", "kept |γ|, of checkpoint's", "largest planned |γ|", "trained %"),
    *("cut %", "|Δ logits|", "fine-tuned %", "seeds", "note"),
)


def _results_table(runs: Sequence[dict[str, Any]]) -> results.Table:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in runs:
        groups.setdefault(row["method"], []).append(row)
    schedule = runs[0]["schedule"]
    notes = (
        f"ResNet-20 (checkpoint), CIFAR-10: {schedule['train']} training images, {schedule['epochs']} epochs "
        f"of sparse training (SGD, momentum {MOMENTUM}, from {schedule['rate']:g}, cosine), "
        f"{schedule['tuning']} of fine-tuning, {schedule['test']} test images. Means over seeds with their "
        "95 % interval (t); |Δ logits|: how far the cut moves one, the largest over test images and seeds.",
        "mask: the plan (norms of weights, no layer loses more than 80 %) is made before, and its channels "
        f"are at zero after {PART:.0%} of the steps; |γ| below {CLOSE:g} is set to zero, the shifts decay to "
        "zero as well, and the cut is `remove_silenced`. shift folded: the shifts are left, and what they "
        "emit is folded into the readers, which zero padding makes inexact at borders. mask of slimming: "
        "the plan of the run with push 0.4, from the checkpoint again.",
        "slimming: the lasso on all scales, with a push of 0.1 or 0.4 times the largest scale over the "
        "schedule; the plan is that of the scales afterwards. no penalty: the plan of the masks, the same "
        "training without one. cut first: that plan applied to the checkpoint (cut %), all epochs after it "
        "(trained %): what there is without sparse training, at half the cost.",
        "Subgradients end close to zero, not at it: of their change nearly all is that of setting the rest "
        "to zero.",
    )
    return results.Table(
        f"{100 * (1 - schedule['fraction']):.0f} % of the MACs removed",
        _COLUMNS,
        tuple(_cells(name, found) for name, found in groups.items()),
        notes,
        (0, -1),
    )


def _cells(name: str, found: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    done = [row for row in found if "right" in row]
    kept = [row["kept_scale"] / row["kept_scale_before"] for row in found]
    changes = [row["logit_change"] for row in done if row["logit_change"] is not None]
    planned = [row["planned_scale"] for row in found if row["planned_scale"] is not None]
    trained, cut, tuned = ([_percent(row["right"][stage]) for row in done] for stage in STAGES)
    return (
        name,
        f"{statistics.mean(row['macs_left'] for row in found):.3f}",
        f"{statistics.mean(kept):.3f}",
        f"{max(planned):.2g}" if planned else "-",
        *(interval(trained), interval(cut), f"{max(changes):.1e}" if changes else "-", interval(tuned)),
        str(len(done)),
        "; ".join(row["failure"] for row in found if "failure" in row),
    )


def _percent(right: str) -> float:
    return 100 * right.count("1") / len(right)


# Student's t at 97.5 %, by degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def interval(values: Sequence[float]) -> str:
    """The mean of runs and half the width of its 95 % interval.

    >>> interval([90.0, 91.0, 92.0])
    '91.0 ± 2.5'
    """
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    t = _T[min(len(values) - 2, len(_T) - 1)]
    return f"{statistics.mean(values):.1f} ± {t * statistics.stdev(values) / math.sqrt(len(values)):.1f}"


def _steps_table(steps: dict[str, list[tuple[float, float]]]) -> results.Table:
    rows = []
    for name, pairs in steps.items():
        ratios = sorted(sparse / plain for sparse, plain in pairs)
        extra = 1e3 * statistics.median(sparse - plain for sparse, plain in pairs)
        plain = 1e3 * statistics.median(plain for _, plain in pairs)
        low, high = ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]
        rows.append(
            (
                name,
                f"{plain:.0f}",
                f"{extra:+.1f}",
                f"{statistics.median(ratios):.3f}",
                f"{low:.3f}-{high:.3f}",
            )
        )
    note = (
        f"CPU time of a training step of 64 images, one thread; {len(next(iter(steps.values())))} pairs that "
        "take turns. The ratio is the median over pairs, with its quartiles."
    )
    columns = ("method", "plain step ms", "sparse adds ms", "sparse / plain", "quartiles")
    return results.Table("What a step costs", columns, tuple(rows), (note,))


def _line(row: dict[str, Any]) -> str:
    head = f"{row['method']}, seed {row['seed']}: "
    if "failure" in row:
        return head + str(row["failure"])
    shown = [f"{stage} {_percent(row['right'][stage]):.1f}" for stage in STAGES]
    change = row["logit_change"]
    return f"{head}{', '.join(shown)}" + (f", logits moved by {change:.1e}" if change is not None else "")


if __name__ == "__main__":
    sys.exit(main())
