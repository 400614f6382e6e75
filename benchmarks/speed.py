"""Speed and peak memory beside torch-pruning, interleaved, on one thread.

    python -m benchmarks.speed [--quick] [--rounds N] [--models NAME ...]

Both remove half of the channels of every layer by L2 magnitude. The headline compares what is
hardest for us: our time for a *new* network with theirs for cutting the one they are given.
"""

from __future__ import annotations

import argparse
import copy
import gc
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

import compressor as cp
from benchmarks import results, zoo
from benchmarks.contenders import CONTENDERS, IN_PLACE, STEPS
from benchmarks.memory import peak_mb
from compressor.budget import Uniform
from compressor.scoring import Norm

SEED = 0
MODELS = (
    "resnet18",
    "resnet50",
    "resnet152",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "regnet_y_400mf",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mnasnet1_0",
    "efficientnet_b0",
    "densenet121",
    "squeezenet1_1",
    "convnext_tiny",
    "vgg16_bn",
)
QUICK = ("resnet18", "mobilenet_v2", "convnext_tiny")

# (name, ours, theirs): the ratios of times, the hardest for us first.
RATIOS = (
    ("new / in place", "ours", "theirs_"),
    ("new / new", "ours", "theirs"),
    ("in place / in place", "ours_", "theirs_"),
)


def main() -> int:
    """The exit code after measuring what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three networks, three rounds")
    parser.add_argument("--rounds", type=int, default=None, help="default 7, with --quick 3")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-scaling", action="store_true")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 7)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        models = zoo.import_torchvision(options.shared)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    kind = "speed-some" if options.models else "speed-quick" if options.quick else "speed"
    facts = results.context("speed", vars(options), seeds=[SEED])
    rows: dict[str, Any] = {"networks": [], "scaling": []}
    for name in options.models or (QUICK if options.quick else MODELS):
        model = zoo.build(models, name, seed=SEED)
        x = zoo.example(name, batch=2, seed=SEED, pixels=options.pixels)
        row = {"network": name, **measured(model, x, options.rounds)}
        if not options.no_memory:
            row["peak_mb"] = _peaks(name, options)
        rows["networks"].append(row)
        print("  ".join(_cells(row)), flush=True)
        results.save(kind, facts, rows, tables(rows))
    if not options.no_scaling:
        for label, count, model in _scaled(models, quick=options.quick):
            x = zoo.example("", batch=2, seed=SEED, pixels=options.pixels)
            rows["scaling"].append({"series": label, "size": count, **measured(model, x, options.rounds)})
            print(f"{label} {count}", flush=True)
    written = results.save(kind, facts, rows, tables(rows))
    for table in tables(rows):
        print(f"\n{table.text()}")
    print(f"\nwritten to {written}")
    return 0


# -- measuring -----------------------------------------------------------------------------------


def measured(model: nn.Module, x: Tensor, rounds: int) -> dict[str, Any]:
    """Times of all contenders, round by round, the order turning; and what the network is.

    A first round warms up and is thrown away: it pays for imports and caches. A contender that
    fails is named in `failures` and has no times.
    """
    row: dict[str, Any] = {"rounds": [], "failures": {}, **_facts(model, x)}
    order = list(CONTENDERS)
    for number in range(-1, rounds):
        times: dict[str, Any] = {}
        for key in order if number % 2 else reversed(order):
            if key in row["failures"]:
                continue
            given = copy.deepcopy(model) if key in IN_PLACE else model
            gc.collect()
            try:
                small, timing = CONTENDERS[key](given, x)
            except Exception as error:
                row["failures"][key] = f"{type(error).__name__}: {error}"
                continue
            times[key] = {
                "cpu_s": timing.cpu_s,
                "wall_s": timing.wall_s,
                "steps_s": timing.steps_s,
            }
            row.setdefault("params_left", {})[key] = _params(small) / _params(model)
            del given, small
        if number >= 0:
            row["rounds"].append(times)
    row["verify_s"] = _verify_seconds(model, x)
    return row


def _facts(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Sizes of the network, and the floor: one forward pass and one copy of the weights."""
    graph = cp.capture(model, x)
    with torch.no_grad():
        forward = min(_seconds(lambda: model(x)) for _ in range(3))
    clone = min(_seconds(lambda: [p.detach().clone() for p in model.parameters()]) for _ in range(3))
    return {
        "operators": len(graph.tape.ops),
        "tensors": len(graph.signature.tensors),
        "units": graph.n_units,
        "params": _params(model),
        "forward_s": forward,
        "copy_s": clone,
    }


def _verify_seconds(model: nn.Module, x: Tensor) -> float:
    graph = cp.capture(model, x)
    plan = cp.plan(cp.score(graph, Norm()), Uniform(0.5))
    small = cp.apply(model, plan)
    return _seconds(lambda: cp.verify(model, small, plan, x, graph=graph))


def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _peaks(name: str, options: argparse.Namespace) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for key in CONTENDERS:
        try:
            found[key] = peak_mb(name, key, pixels=options.pixels, shared=options.shared)
        except zoo.Missing as missing:
            found[key] = str(missing)
    return found


def _scaled(models: ModuleType, *, quick: bool) -> list[tuple[str, int, nn.Module]]:
    """Series in which one thing grows: the layers, or the channels of every layer."""
    bottleneck = models.resnet.Bottleneck
    depths = (3, 12, 36) if quick else (3, 12, 36, 72)
    widths = (32, 64, 128) if quick else (16, 32, 64, 128, 256)
    torch.manual_seed(SEED)
    nets: list[tuple[str, int, nn.Module]] = []
    for blocks in depths:
        net = models.resnet.ResNet(bottleneck, [2, 2, blocks, 2])
        nets.append(("layers", 3 * (6 + blocks) + 6, net.eval()))
    for width in widths:
        # With `width_per_group` only the inner widths of the bottlenecks grow.
        net = models.resnet.ResNet(bottleneck, [3, 4, 6, 3], width_per_group=width)
        nets.append(("inner width of the first stage", width, net.eval()))
    return nets


# -- tables --------------------------------------------------------------------------------------


def tables(rows: dict[str, Any]) -> list[results.Table]:
    """All that was measured: time, ratios, memory, growth."""
    networks = rows["networks"]
    made = [_time_table(networks)] if networks else []
    if any("peak_mb" in row for row in networks):
        made.append(_memory_table(networks))
    family = [row for row in networks if row["network"] in ("resnet18", "resnet50", "resnet152")]
    grown = [*({**row, "series": "ResNet", "size": row["network"][6:]} for row in family)]
    if grown or rows["scaling"]:
        made.append(_scaling_table([*grown, *rows["scaling"]]))
    return made


def median_s(row: dict[str, Any], key: str, clock: str = "cpu_s") -> float:
    """The median of a contender's times; NaN if it failed."""
    times = [times[key][clock] for times in row["rounds"] if key in times]
    return statistics.median(times) if times else math.nan


def round_ratios(row: dict[str, Any], mine: str, peer: str, clock: str = "cpu_s") -> list[float]:
    """Our time over theirs in each round that has both."""
    pairs = [(t[mine][clock], t[peer][clock]) for t in row["rounds"] if mine in t and peer in t]
    return [a / b for a, b in pairs]


_TIME_COLUMNS = (
    "network",
    "ours new",
    "(capture, score, plan, apply)",
    "ours in place",
    "theirs in place",
    "theirs new",
    *(name for name, _, _ in RATIOS),
    "wall: new / in place",
    "verify",
    "floor",
    "params left, ours : theirs",
    "note",
)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    steps = [
        statistics.median(t["ours"]["steps_s"][i] for t in row["rounds"] if "ours" in t)
        for i in range(len(STEPS))
    ]
    left = row.get("params_left", {})
    ratios = [_spread(round_ratios(row, mine, peer)) for _, mine, peer in RATIOS]
    return (
        row["network"],
        *(_ms(median_s(row, "ours")), " + ".join(_ms(s) for s in steps)),
        *(_ms(median_s(row, key)) for key in ("ours_", "theirs_", "theirs")),
        *ratios,
        _spread(round_ratios(row, *RATIOS[0][1:], clock="wall_s")),
        _ms(row["verify_s"]),
        _ms(row["forward_s"] + row["copy_s"]),
        f"{left.get('ours', math.nan):.3f} : {left.get('theirs_', math.nan):.3f}",
        "; ".join(f"{key}: {reason}" for key, reason in row["failures"].items()),
    )


def _time_table(networks: Sequence[dict[str, Any]]) -> results.Table:
    verdicts = []
    for name, mine, peer in RATIOS:
        medians = [
            (statistics.median(found), row["network"])
            for row in networks
            if (found := round_ratios(row, mine, peer))
        ]
        if medians:
            worst, where = max(medians)
            middle = statistics.median(value for value, _ in medians)
            slower = [network for value, network in medians if value > 1]
            verdicts.append(
                f"{name}: median over {len(medians)} networks {middle:.2f}, worst {worst:.2f} "
                f"({where}), slower on {len(slower)}"
            )
    notes = (
        "Our time / theirs, the headline first. " + ". ".join(verdicts) + ".",
        "Times are CPU milliseconds, medians over rounds; ratios are medians of the ratio in each "
        "round, with the least and the largest. `new` returns a new network (theirs: a deep copy "
        "first), `in place` cuts the one it is given. verify, which torch-pruning has not, is "
        "extra. floor: one forward pass and one copy of the weights. Unequal params left: the two "
        "did not do equal work.",
    )
    return results.Table("Time", _TIME_COLUMNS, tuple(_cells(row) for row in networks), notes, (0, -1))


def _memory_table(networks: Sequence[dict[str, Any]]) -> results.Table:
    columns = ("network", "weights MB", "ours new", "ours in place", "theirs in place", "theirs new")
    lines: list[tuple[str, ...]] = []
    failures: list[str] = []
    for row in networks:
        peaks = row.get("peak_mb", {})
        shown = [peaks.get(key) for key in ("ours", "ours_", "theirs_", "theirs")]
        values = [f"{v:.0f}" if isinstance(v, float) else "fails" if v else "-" for v in shown]
        lines.append((row["network"], f"{row['params'] * 4e-6:.0f}", *values))
        failures += [peak for peak in shown if isinstance(peak, str)]
    note = "MB of resident memory from just before pruning to its peak, each in a process of its own."
    return results.Table("Peak memory", columns, tuple(lines), (note, *failures))


def _scaling_table(rows: Sequence[dict[str, Any]]) -> results.Table:
    columns = (
        *("series", "size", "operators", "units", "params", "floor", "ours new", "theirs in place"),
        "new / in place",
    )
    lines: list[tuple[str, ...]] = []
    series: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        lines.append(
            (
                *(row["series"], str(row["size"]), str(row["operators"]), str(row["units"])),
                *(f"{row['params'] / 1e6:.1f} M", _ms(row["forward_s"] + row["copy_s"])),
                *(_ms(median_s(row, "ours")), _ms(median_s(row, "theirs_"))),
                _spread(round_ratios(row, "ours", "theirs_")),
            )
        )
        series.setdefault(row["series"], []).append(row)
    notes = [_growth(name, found[0], found[-1]) for name, found in series.items() if len(found) > 1]
    return results.Table("Growth", columns, tuple(lines), tuple(notes))


def _growth(series: str, first: dict[str, Any], last: dict[str, Any]) -> str:
    key = "units" if "width" in series else "operators"
    factor = last[key] / first[key]
    said = [f"{series}: {factor:.1f} times the {key}"]
    for whose, contender in (("ours", "ours"), ("theirs", "theirs_")):
        grown = median_s(last, contender) / median_s(first, contender)
        said.append(f"{whose} {grown:.1f} times the time (exponent {math.log(grown) / math.log(factor):.2f})")
    return ", ".join(said) + "."


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{1e3 * seconds:.0f}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main())
