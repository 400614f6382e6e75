"""Which channels to keep on imbalanced medical images: Beta-Rank, MaskSparsity and others, one recipe.

    python -m benchmarks.imbalanced [--quick] [--seeds N ...] [--sets NAME ...] [--methods NAME ...]

For every set and seed one ResNet-20 is trained; every method removes the same share of its MACs and is
fine-tuned on the same images in the same order. Every finished run is kept in `benchmarks/results/`; a
run that was interrupted goes on where it stopped. `--tune` picks the fine-tuning rate on the validation
parts, `--tables` only prints what is there.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import compressor as cp
from benchmarks import medical, results, resuming, zoo
from benchmarks.imbalanced_methods import (
    AT_ONE_FRACTION,
    CANDIDATES,
    METHODS,
    REFERENCE,
    RESCALED,
    prune_and_tune,
)
from benchmarks.medical import Medical, recipe_of
from benchmarks.resuming import Row
from compressor.evaluation import (
    Classification,
    Interval,
    Predictions,
    classification,
    classify,
    compare_classes,
    t_interval,
)

DENSE = "dense"
_TRAINED = {"HAM10000": 16, "PneumoniaMNIST-1:9": 12}  # epochs of the unpruned networks
_TRAINED_AT = 0.1
_TUNING = (REFERENCE,)  # the rate is chosen for the reference, not for a favourite
_QUICK = (REFERENCE, "Taylor", "default")
_ALL = {**METHODS, **CANDIDATES}


def main() -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(options.threads)
    try:
        folder = zoo.shared_folder(options.shared)
        sets = {name: medical.load(name, folder, limit=options.limit) for name in options.sets}
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    kind = (
        "imbalanced-tuning" if options.tune else "imbalanced-default" if options.candidates else "imbalanced"
    )
    kind += "-quick" if options.quick else ""
    facts = results.context("imbalanced", vars(options), seeds=options.seeds)
    rows = resuming.kept(kind, schedule(options))
    todo = [] if options.tables else [key for key in keys(options) if not any(_is(row, key) for row in rows)]

    def keep(row: Row) -> None:
        rows.append(row)
        results.save(kind, facts, rows, tables(rows, options))

    resuming.go_on(len(rows), todo, lambda key: run(sets[key["set"]], key, options), keep, _line)
    resuming.show(kind, facts, rows, lambda rows: tables(rows, options))
    return 1 if any("failure" in row for row in rows) else 0


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imbalanced", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three methods, 192 images, one epoch, one seed")
    parser.add_argument("--sets", nargs="+", choices=list(medical.SETS), default=list(medical.SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default 0 1 2, with --quick 0")
    parser.add_argument("--fractions", type=float, nargs="+", default=None, help="of MACs left: 0.55 0.42")
    parser.add_argument("--methods", nargs="+", choices=list(_ALL), default=None, help="default: all")
    parser.add_argument("--width", type=int, default=8, help="channels of the first stage")
    parser.add_argument("--epochs", type=int, default=None, help="of fine-tuning: 3, quick 1")
    parser.add_argument("--rate", type=float, default=0.02, help="highest learning rate of fine-tuning")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1], help="for --tune")
    parser.add_argument("--limit", type=int, default=None, help="images of each part")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tune", action="store_true", help="compare --rates on the validation parts")
    parser.add_argument("--candidates", action="store_true", help="other defaults, on the validation parts")
    parser.add_argument("--part", choices=("test", "val"), default="test", help="which the tables are of")
    parser.add_argument("--tables", action="store_true", help="only print what is done")
    zoo.add_shared_option(parser)
    options = parser.parse_args(arguments)
    if options.tune and options.candidates:
        parser.error("--tune and --candidates are two runs")
    choosing = options.tune or options.candidates
    quick = options.quick
    options.seeds = options.seeds or ([0] if quick or options.tune else [0, 1, 2])
    options.fractions = options.fractions or ([0.55] if quick else [0.42] if choosing else [0.55, 0.42])
    wanted = _QUICK if quick else _TUNING if options.tune else CANDIDATES if options.candidates else METHODS
    options.methods = options.methods or list(wanted)
    options.epochs = options.epochs or (1 if quick else 3)
    options.limit = options.limit or (192 if quick else None)
    options.part = "val" if choosing else options.part
    return options


# -- runs ----------------------------------------------------------------------------------------


def keys(options: argparse.Namespace) -> list[Row]:
    """What names each run, a seed of all sets and methods after the other."""
    rates = options.rates if options.tune else [options.rate]
    found: list[Row] = []
    for seed in options.seeds:
        for name in options.sets:
            found.append({"set": name, "seed": seed, "method": DENSE, "fraction": 1.0, "rate": 0.0})
            for fraction in options.fractions:
                for method in options.methods:
                    if method in AT_ONE_FRACTION and fraction != min(options.fractions):
                        continue
                    for rate in rates:
                        key = {"set": name, "seed": seed, "method": method, "fraction": fraction}
                        found.append({**key, "rate": rate})
    return found


def schedule(options: argparse.Namespace) -> Row:
    """What all runs of one file have in common."""
    found = {name: getattr(options, name) for name in ("epochs", "width", "limit")}
    return {**found, "rate": None if options.tune else options.rate}


def _is(row: Row, key: Row) -> bool:
    return all(row[name] == value for name, value in key.items())


def run(data: Medical, key: Row, options: argparse.Namespace) -> Row:
    """One method at one fraction: its cost, and what it names the images of both parts after each stage."""
    trained = recipe_of(options.epochs if options.quick else _TRAINED[data.name], _TRAINED_AT)
    tag = "" if options.limit is None else f"first{options.limit}-"
    model = medical.baseline(data, trained, width=options.width, seed=key["seed"], tag=tag)
    row = {**key, "schedule": schedule(options)}
    if key["method"] == DENSE:
        return {**row, **_measured(model, {"tuned": model}, data)}
    recipe = recipe_of(options.epochs, key["rate"])
    try:
        cut, tuned = prune_and_tune(
            copy.deepcopy(model),
            data,
            _ALL[key["method"]],
            recipe,
            fraction=key["fraction"],
            seed=key["seed"],
        )
    except Exception as error:  # a method that cannot do it is a result, too
        return {**row, "failure": f"{type(error).__name__}: {error}"}
    return {**row, **_measured(model, {"cut": cut, "tuned": tuned}, data)}


def _measured(model: nn.Module, stages: Mapping[str, nn.Module], data: Medical) -> Row:
    small = stages["tuned"]
    found = {
        part: {
            stage: classify(net, data.batches(part, size=512), classes=data.classes)
            for stage, net in stages.items()
        }
        for part in ("val", "test")
    }
    tuned = found["test"]["tuned"]
    return {
        "macs_left": cp.profile(small, data.example).macs / cp.profile(model, data.example).macs,
        "params_left": sum(p.numel() for p in small.parameters())
        / sum(p.numel() for p in model.parameters()),
        "classes": list(data.classes),
        "confusion": {
            part: {stage: _counted(predicted) for stage, predicted in of_stages.items()}
            for part, of_stages in found.items()
        },
        # One digit for each test image, so that methods can be compared image by image.
        "named": "".join(map(str, tuned.predicted.tolist())),
        **({"labels": "".join(map(str, tuned.true.tolist()))} if small is model else {}),
    }


def _counted(predicted: Predictions) -> str:
    """The confusion matrix as text, a row for each true class: the file stays readable."""
    counts = classification(predicted, resamples=100).confusion
    return "; ".join(" ".join(map(str, row)) for row in counts.tolist())


# -- tables --------------------------------------------------------------------------------------

RATES = ("balanced accuracy", "macro F1", "worst recall")
_NOTES = (
    "Means over the seeds with 95 % t intervals; differences are paired, seed by seed, with 95 % t "
    "intervals: bold where they leave out 0, as one in twenty does by chance. Every seed is another trained "
    "network.",
    "All methods thin every layer by the same ratio, so that the networks have one shape and differ in which "
    "channels they kept; but `default`, which is `cp.prune` without a scorer, and those called global rank "
    "all layers together, and those called degeneracy take more of degenerate layers.",
)


def counts_of(row: Row, part: str, stage: str = "tuned") -> Classification:
    """The rates of a run on all images of a part."""
    lines = row["confusion"][part][stage].split("; ")
    confusion = np.array([[int(n) for n in line.split()] for line in lines])
    true, predicted = (np.repeat(place.ravel(), confusion.ravel()) for place in np.indices(confusion.shape))
    return classification(Predictions(true, predicted, tuple(row["classes"])), resamples=100)


def rates_of(row: Row, part: str, stage: str = "tuned") -> tuple[float, float, float]:
    """The values of `RATES`."""
    found = counts_of(row, part, stage)
    return found.balanced_accuracy.value, found.macro_f1.value, found.worst[1].value


def tables(rows: Sequence[Row], options: argparse.Namespace) -> list[results.Table]:
    """Per set and fraction the methods, then what rescaling does, then the recall of every class."""
    rows = [row for row in rows if row["set"] in options.sets]
    if options.tune:
        return [_rates_table(rows)] if rows else []
    found = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name and "failure" not in row]
        fractions = sorted({row["fraction"] for row in own} - {1.0}, reverse=True)
        found += [_methods_table(name, own, fraction, options.part) for fraction in fractions]
        if fractions:
            found.append(_classes_table(name, own, fractions[-1], options.part))
            found += [] if options.part == "val" else _harm_tables(name, own, fractions[-1])
    ablation = _rescaling_table(rows, options.part)
    return [*found, *([ablation] if ablation.rows else [])]


def _of(rows: Sequence[Row], method: str, fraction: float) -> dict[int, Row]:
    """The runs of a method by their seed."""
    return {row["seed"]: row for row in rows if (row["method"], row["fraction"]) == (method, fraction)}


def differences(mine: Mapping[int, Row], theirs: Mapping[int, Row], part: str) -> list[list[float]]:
    """For each of `RATES` mine minus theirs, for every seed that both have."""
    pairs = [(rates_of(mine[s], part), rates_of(theirs[s], part)) for s in mine if s in theirs]
    return [[a[i] - b[i] for a, b in pairs] for i in range(len(RATES))]


def _methods_table(name: str, rows: Sequence[Row], fraction: float, part: str) -> results.Table:
    base = REFERENCE if _of(rows, REFERENCE, fraction) else "default"
    reference = _of(rows, base, fraction)
    lines = []
    for method in (DENSE, *(method for method in _ALL if not RESCALED.get(method))):
        found = _of(rows, method, 1.0 if method == DENSE else fraction)
        if not found:
            continue
        values = list(zip(*(rates_of(row, part) for row in found.values()), strict=True))
        cut = [rates_of(row, part, "cut")[0] for row in found.values()] if method != DENSE else []
        other = method not in (DENSE, base)
        lines.append(
            (
                method,
                f"{statistics.mean(row['macs_left'] for row in found.values()):.3f}",
                f"{statistics.mean(row['params_left'] for row in found.values()):.3f}",
                _percent(cut),
                *map(_percent, values),
                *([_gain(d) for d in differences(found, reference, part)] if other else ["-"] * 3),
                str(len(found)),
            )
        )
    gains = (f"{rate}, − {base}" for rate in RATES)
    columns = ("method", "MACs left", "params left", "bal. acc. after the cut", *RATES, *gains, "seeds")
    title = f"{name}: {100 * (1 - fraction):.0f} % of the MACs removed ({part} part), %"
    return results.Table(title, columns, tuple(lines), _NOTES)


def _classes_table(name: str, rows: Sequence[Row], fraction: float, part: str) -> results.Table:
    """The recall of every class, before and after."""
    lines, classes = [], rows[0]["classes"]
    support: tuple[int, ...] = ()
    for method in (DENSE, *(method for method in _ALL if not RESCALED.get(method))):
        runs = [
            counts_of(row, part) for row in _of(rows, method, 1.0 if method == DENSE else fraction).values()
        ]
        if runs:
            support = runs[0].support
            recalls = zip(*(run.recall for run in runs), strict=True)
            lines.append((method, *(_percent([r.value for r in each if r is not None]) for each in recalls)))
    columns = ("method", *(f"{c} ({n})" for c, n in zip(classes, support, strict=True)))
    title = (
        f"{name}: recall of every class (images of it), {100 * (1 - fraction):.0f} % of the MACs removed, %"
    )
    return results.Table(title, columns, tuple(lines), ("Means over the seeds with 95 % t intervals.",))


def _harm_tables(name: str, rows: Sequence[Row], fraction: float) -> list[results.Table]:
    """Which classes the default hurts most, test image by test image, in the first seed that has it."""
    dense, small = _of(rows, DENSE, 1.0), _of(rows, "default", fraction)
    seeds = sorted(dense.keys() & small.keys())
    if not seeds:
        return []
    seed = seeds[0]
    labels = _numbers(dense[seed]["labels"])
    before, after = (
        Predictions(labels, _numbers(row["named"]), tuple(row["classes"]))
        for row in (dense[seed], small[seed])
    )
    lines = [
        (
            c.name,
            str(c.samples),
            f"{100 * c.before.value:.1f}",
            f"{100 * c.after.value:.1f}",
            f"{100 * c.change.value:+.1f} ({100 * c.change.low:+.1f} to {100 * c.change.high:+.1f})",
            str(c.lost),
            str(c.gained),
            f"{c.p_adjusted:.2g}",
        )
        for c in compare_classes(before, after).changes
    ]
    columns = ("class", "images", "before", "after", "change", "lost", "gained", "p (Holm)")
    removed = f"{100 * (1 - fraction):.0f} % of the MACs removed"
    title = f"{name}: what `default` does to each class, {removed}, seed {seed}, recall, %"
    notes = (
        "`compressor.evaluation.compare_classes`: paired image by image, with 95 % intervals and McNemar's "
        "exact test.",
    )
    return [results.Table(title, columns, tuple(lines), notes)]


def _numbers(digits: str) -> npt.NDArray[np.int64]:
    return np.array(list(map(int, digits)), dtype=np.int64)


def _rescaling_table(rows: Sequence[Row], part: str) -> results.Table:
    """What multiplying the kept filters by 1 + score does before fine-tuning."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name and "failure" not in row]
        for method, plain in RESCALED.items():
            for fraction in sorted({row["fraction"] for row in own if row["method"] == method}):
                with_it, without = _of(own, method, fraction), _of(own, plain, fraction)
                gains = [_gain(d) for d in differences(with_it, without, part)]
                lines.append((name, plain, f"{100 * (1 - fraction):.0f} %", *gains, str(len(with_it))))
    columns = ("set", "method", "MACs removed", *(f"{rate}, rescaled − not" for rate in RATES), "seeds")
    notes = (
        "The published code multiplies every kept filter by 1 + its score before fine-tuning: 1 to 2 for "
        "Beta-Rank, up to the number of positions for L1 and to the side of the map for HRank. The network "
        "computes the same (the norm behind follows), but filters c times larger turn c^2 times more slowly.",
    )
    return results.Table("Filters rescaled by 1 + score, points", columns, tuple(lines), notes, (0, 1))


def _rates_table(rows: Sequence[Row]) -> results.Table:
    """Fine-tuning rates on the validation parts, mean over methods, fractions and seeds."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name and row["method"] != DENSE and "failure" not in row]
        for rate in sorted({row["rate"] for row in own}):
            found = [rates_of(row, "val") for row in own if row["rate"] == rate]
            means = [f"{100 * statistics.mean(values):.1f}" for values in zip(*found, strict=True)]
            lines.append((name, f"{rate:g}", *means, str(len(found))))
    return results.Table("Fine-tuning rates (val part), %", ("set", "rate", *RATES, "runs"), tuple(lines))


def _percent(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = 100 * statistics.mean(values)
    return f"{mean:.1f}" if len(values) < 2 else f"{mean:.1f} ± {100 * _half(t_interval(values)):.1f}"


def _gain(values: Sequence[float]) -> str:
    """Points of difference, bold where the interval leaves out 0."""
    if not values:
        return "-"
    mean = 100 * statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.1f}"
    interval = t_interval(values)
    text = f"{mean:+.1f} ± {100 * _half(interval):.1f}"
    return text if interval.low <= 0 <= interval.high else f"**{text}**"


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _line(row: Row) -> str:
    head = f"{row['set']} {row['method']} {row['fraction']:g} rate {row['rate']:g} seed {row['seed']}: "
    if "failure" in row:
        return f"{head}{row['failure']}"
    shown = ", ".join(
        f"{part} {' '.join(f'{100 * rate:.1f}' for rate in rates_of(row, part))}" for part in ("val", "test")
    )
    return f"{head}MACs {row['macs_left']:.3f}, {shown}"


if __name__ == "__main__":
    sys.exit(main())
