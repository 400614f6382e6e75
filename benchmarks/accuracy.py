"""Accuracy of ResNet-56 on CIFAR-10 after pruning, for every scorer, beside torch-pruning's.

    python -m benchmarks.accuracy [--quick] [--epochs N] [--train N] [--seeds N ...]

For each method: right after the cut, after BatchNorm statistics were measured anew, and after
fine-tuning. Every finished run is kept in `benchmarks/results/`; a run that was interrupted goes on
where it stopped. `--tables` only prints what is there.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

from benchmarks import cifar, results, zoo
from benchmarks.methods import Method, chosen, fraction_of_macs, prune

DENSE = Method("none", "dense", "-", "-")
STAGES = ("one_shot", "recalibrated", "fine_tuned")
_RECALIBRATED_ON = 512


def main() -> int:
    """The exit code after the runs that the command line asks for and that are not done yet."""
    options = _options()
    torch.set_num_threads(options.threads)
    try:
        folder = zoo.shared_folder(options.shared)
        model, data = cifar.load(folder, train=options.train, test=options.test)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    kind = "accuracy-quick" if options.quick else "accuracy"
    facts = results.context("accuracy", vars(options), seeds=options.seeds)
    rows = _done(kind, options)
    todo = [key for key in _keys(options) if not any(_is(row, key) for row in rows)]
    if options.tables:
        todo = []
    print(f"{len(rows)} runs are done, {len(todo)} to go", flush=True)
    try:
        for number, key in enumerate(todo, start=1):
            start = time.perf_counter()
            rows.append(_run(model, data, key, options))
            results.save(kind, facts, rows, tables(rows))
            print(
                f"[{number}/{len(todo)}] {_line(rows[-1])}  {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here")
    for table in tables(rows):
        print(f"\n{table.text()}")
    print(f"\nwritten to {results.save(kind, facts, rows, tables(rows))}")
    return 1 if any("failure" in row and row["library"] == "ours" for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three methods, 256 images, half the MACs")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--train", type=int, default=None, help="default 2000, with --quick 256")
    parser.add_argument("--test", type=int, default=None, help="default 1000, with --quick 250")
    parser.add_argument("--rate", type=float, default=0.01, help="first learning rate")
    parser.add_argument("--fractions", type=float, nargs="+", default=None, help="of MACs left")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", choices=("magnitude", "every"), default="magnitude")
    parser.add_argument("--tables", action="store_true", help="only print what is done")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    options.train = options.train or (256 if options.quick else 2000)
    options.test = options.test or (250 if options.quick else 1000)
    options.fractions = options.fractions or ([0.5] if options.quick else [0.7, 0.5, 0.3])
    return options


# -- runs ----------------------------------------------------------------------------------------

Key = tuple[Method, float, int]


def _keys(options: argparse.Namespace) -> list[Key]:
    """All runs; the network as it is comes first, and fine-tuned tells what training alone does."""
    methods = chosen(quick=options.quick, peers=options.peers)
    return [
        key
        for seed in options.seeds
        for key in (
            (DENSE, 1.0, seed),
            *((method, fraction, seed) for fraction in options.fractions for method in methods),
        )
    ]


def _done(kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Earlier runs; they count only if they were trained and tested alike."""
    earlier = results.read(kind)
    if earlier is None:
        return []
    rows: list[dict[str, Any]] = earlier["rows"]
    if any(row["schedule"] != _schedule(options) for row in rows):
        raise SystemExit(
            f"benchmarks/results/{kind}.json holds runs with {rows[0]['schedule']}, now "
            f"{_schedule(options)} is asked for: move the file away first, or use the same options"
        )
    return rows


def _schedule(options: argparse.Namespace) -> dict[str, Any]:
    names = ("epochs", "train", "test", "rate")
    return {name: getattr(options, name) for name in names}


def _is(row: dict[str, Any], key: Key) -> bool:
    method, fraction, seed = key
    return (_method(row), row["fraction"], row["seed"]) == (method, fraction, seed)


def _method(row: dict[str, Any]) -> Method:
    return Method(row["library"], row["scorer"], row["scope"], row["order"])


def _run(model: nn.Module, data: cifar.Data, key: Key, options: argparse.Namespace) -> dict[str, Any]:
    """One method at one fraction: its cost and which test images it names rightly at each stage."""
    method, fraction, seed = key
    x = data.x_test[:1]
    row: dict[str, Any] = {
        **vars(method),
        "fraction": fraction,
        "seed": seed,
        "schedule": _schedule(options),
    }
    try:
        small = (
            copy.deepcopy(model)
            if method == DENSE
            else prune(model, x, method, fraction=fraction, data=data, seed=seed)
        )
    except Exception as error:  # a method that cannot do it is a result, too
        return {**row, "failure": f"{type(error).__name__}: {error}"}
    return {**row, **_measured(model, small, x, data, seed, options)}


def _measured(
    model: nn.Module,
    small: nn.Module,
    x: Tensor,
    data: cifar.Data,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    again = copy.deepcopy(small)
    cifar.recalibrate_(again, data, examples=min(_RECALIBRATED_ON, options.train))
    # Only the statistics of a net in eval mode differ: few steps would leave them between two nets.
    tuned = copy.deepcopy(again)
    cifar.fine_tune_(tuned, data, epochs=options.epochs, rate=options.rate, seed=seed)
    rights = [cifar.correct(net, data) for net in (small, again, tuned)]
    return {
        "macs_left": fraction_of_macs(model, small, x),
        "params_left": sum(p.numel() for p in small.parameters())
        / sum(p.numel() for p in model.parameters()),
        "right": {
            stage: "".join("01"[r] for r in right) for stage, right in zip(STAGES, rights, strict=True)
        },
    }


# -- tables --------------------------------------------------------------------------------------


def tables(rows: Sequence[dict[str, Any]]) -> list[results.Table]:
    """One table for each fraction, with the network as it is on top."""
    dense = [row for row in rows if _method(row) == DENSE]
    fractions = sorted({row["fraction"] for row in rows if _method(row) != DENSE}, reverse=True)
    return [_table(f, dense, [row for row in rows if row["fraction"] == f]) for f in fractions]


_COLUMNS = (
    *("library", "scorer", "may cut", "order", "MACs left", "params left"),
    *("one-shot %", "recalibrated %", "fine-tuned %", "− torch-pruning", "seeds", "note"),
)


def _table(fraction: float, dense: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> results.Table:
    groups: dict[Method, list[dict[str, Any]]] = {}
    for row in [*dense, *rows]:
        groups.setdefault(_method(row), []).append(row)
    peer = _best_peer(groups)
    best = [] if peer is None else groups[peer]
    lines = [_cells(method, found, best) for method, found in groups.items()]
    lines = [*lines[: bool(dense)], *sorted(lines[bool(dense) :], key=_by_result, reverse=True)]
    schedule = [*dense, *rows][0]["schedule"]
    notes = (
        f"ResNet-56 (checkpoint), CIFAR-10: {schedule['test']} test images, "
        f"{schedule['train']} training images, {schedule['epochs']} epoch(s) of fine-tuning, SGD "
        f"from {schedule['rate']:g}, cosine. ± is the standard error over the test images; "
        "differences are paired, image by image.",
        "all: any layer; inner: only between a block's two convolutions. "
        f"− torch-pruning: fine-tuned, minus its best `inner` result ({peer or 'not run'}), picked "
        "on the same test images, which favours it.",
        "torch-pruning's `all` takes zero-padded shortcuts for element-wise operators and so mixes "
        "up channels; it runs, and is listed as it is. Its ratio is found by bisection.",
    )
    title = f"{100 * (1 - fraction):.0f} % of the MACs removed"
    return results.Table(title, _COLUMNS, tuple(lines), notes, (0, 1, 2, 3, -1))


def _cells(
    method: Method, found: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    done = [row for row in found if "right" in row]
    failures = "; ".join(row["failure"] for row in found if "failure" in row)

    def mean(key: str) -> str:
        return f"{statistics.mean(row[key] for row in done):.3f}" if done else "-"

    return (
        *(method.library, method.scorer, method.scope, method.order),
        *(mean("macs_left"), mean("params_left")),
        *(accuracy_of(done, stage) for stage in STAGES),
        "" if method.library != "ours" else difference(done, peer),
        str(len(done)),
        failures,
    )


def _best_peer(groups: dict[Method, list[dict[str, Any]]]) -> Method | None:
    found = {
        method: share(rows, "fine_tuned")
        for method, rows in groups.items()
        if method.library == "torch-pruning"
        and method.scope == "inner"
        and any("right" in row for row in rows)
    }
    return max(found, key=lambda method: found[method], default=None)


def share(rows: Sequence[dict[str, Any]], stage: str) -> float:
    """The share of right answers over all runs."""
    rights = "".join(row["right"][stage] for row in rows if "right" in row)
    return rights.count("1") / len(rights)


def accuracy_of(rows: Sequence[dict[str, Any]], stage: str) -> str:
    """Percent of right answers and their standard error over the test images."""
    if not rows:
        return "-"
    right, n = share(rows, stage), len(rows[0]["right"][stage])
    # More seeds share the test images, so they do not make this error smaller.
    return f"{100 * right:.1f} ± {100 * math.sqrt(right * (1 - right) / n):.1f}"


def difference(
    rows: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]], *, stage: str = "fine_tuned"
) -> str:
    """Points of accuracy over the peer's and their standard error, image by image."""
    seeds = {row["seed"] for row in rows} & {row["seed"] for row in peer if "right" in row}
    if not seeds:
        return "-"
    mine = _per_image([row for row in rows if row["seed"] in seeds], stage)
    theirs = _per_image([row for row in peer if "right" in row and row["seed"] in seeds], stage)
    gains = [a - b for a, b in zip(mine, theirs, strict=True)]
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    return f"{100 * statistics.mean(gains):+.1f} ± {100 * error:.1f}"


def _per_image(rows: Sequence[dict[str, Any]], stage: str) -> list[float]:
    runs = [[int(bit) for bit in row["right"][stage]] for row in rows]
    return [statistics.mean(image) for image in zip(*runs, strict=True)]


def _by_result(cells: tuple[str, ...]) -> float:
    fine_tuned = cells[_COLUMNS.index("fine-tuned %")]
    return -1.0 if fine_tuned == "-" else float(fine_tuned.split()[0])


def _line(row: dict[str, Any]) -> str:
    head = f"{_method(row)} {row['fraction']:g} seed {row['seed']}: "
    if "failure" in row:
        return f"{head}{row['failure']}"
    parts = [f"{stage} {100 * share([row], stage):.1f}" for stage in STAGES]
    return f"{head}MACs {row['macs_left']:.3f}, {', '.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
