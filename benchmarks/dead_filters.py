"""Dead filters of trained ResNets: how many there are, and what their removal changes.

    python -m benchmarks.dead_filters [--quick]

A filter is dead where all its weights lie below 1 % of the layer's largest, the batch norm behind it folded
in. Those inside blocks, whose channels end at the next convolution, are cut; nothing is trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import nn

import compressor as cp
from benchmarks import cifar, results, zoo
from benchmarks.cifar import Data
from compressor.core.graph import Graph, Mask

Row = dict[str, Any]


def main() -> int:
    """The exit code after every network was counted and cut."""
    options = _options()
    torch.set_num_threads(1)
    rows = []
    try:
        for name in options.networks:
            model, data = cifar.load(
                zoo.shared_folder(options.shared), train=64, test=options.test, name=name
            )
            rows.append({"network": name, "test": options.test, **found_in(model, data)})
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    print(table(rows).text())
    facts = results.context("dead_filters", vars(options), seeds=[])
    kind = "dead_filters-quick" if options.quick else "dead_filters"
    print(f"\nwritten to {results.save(kind, facts, rows, [table(rows)])}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dead_filters", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ResNet-20, 100 test images")
    parser.add_argument("--networks", nargs="+", choices=list(cifar.CHECKPOINTS), default=None)
    parser.add_argument("--test", type=int, default=None, help="images: 1000, quick 100")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    options.networks = options.networks or (["resnet20_cifar"] if options.quick else list(cifar.CHECKPOINTS))
    options.test = options.test or (100 if options.quick else 1000)
    return options


def found_in(model: nn.Module, data: Data) -> Row:
    """The dead filters of a network in all and inside blocks, and the network without the latter."""
    x = data.x_test[:1]
    counts: Row = {}
    for name, folded in (("folded", True), ("as they are", False)):
        dead = dead_filters(model, x, fold_batch_norm=folded)
        inside = {layer: filters for layer, filters in dead.items() if _is_inside(layer)}
        counts[name] = {"all": _count(dead), "inside": _count(inside)}
        if folded:
            cut = inside
    graph = cp.capture(model, x)
    plan = graph.plan(_units(graph, cut))
    small = cp.apply(model, plan)
    cp.verify(model, small, plan, x, graph=graph)
    before, after = cifar.correct(model, data), cifar.correct(small, data)
    with torch.no_grad():
        change = max(float((model(part) - small(part)).abs().max()) for part in data.x_test.split(250))
    return {
        "filters": sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)),
        "dead": counts,
        "macs_left": cp.profile(small, x).macs / cp.profile(model, x).macs,
        "right": {"before": sum(before), "after": sum(after)},
        "changed": sum(a != b for a, b in zip(before, after, strict=True)),
        "logit_change": change,
    }


def dead_filters(model: nn.Module, x: torch.Tensor, *, fold_batch_norm: bool) -> dict[str, list[int]]:
    """The dead filters of each layer by its name."""
    report = cp.filters.report(model, x, fold_batch_norm=fold_batch_norm)
    return {layer.bank.name: list(layer.quality.dead_filters) for layer in report.layers}


def _is_inside(layer: str) -> bool:
    """Whether only the block's second convolution reads the layer."""
    return layer.startswith("layer") and layer.endswith(".conv1")


def _count(dead: dict[str, list[int]]) -> int:
    return sum(map(len, dead.values()))


def _units(graph: Graph, dead: dict[str, list[int]]) -> Mask:
    """The units of these filters."""
    written = {axis.tensor: axis.units for axis in graph.axes if axis.axis == 0}
    removed = np.zeros(graph.n_units, dtype=bool)
    for layer, filters in dead.items():
        removed[written[f"{layer}.weight"][filters]] = True
    return removed


def table(rows: Sequence[Row]) -> results.Table:
    """A line for each network."""
    lines = []
    for row in rows:
        dead, right = row["dead"], row["right"]
        lines.append(
            (
                row["network"],
                f"{dead['folded']['all']} of {row['filters']:,}",
                *(str(dead[kind]["inside"]) for kind in ("folded", "as they are")),
                f"{100 * (1 - row['macs_left']):.1f}",
                f"{right['before']}, {right['after']}",
                str(row["changed"]),
                f"{row['logit_change']:.0e}",
            )
        )
    columns = (
        *("network", "dead", "inside blocks", "without folding", "their MACs, %"),
        *("right before, after", "answers changed", "|Δ logits|"),
    )
    note = (
        "Published checkpoints. Dead: all weights of the filter below 1 % of the layer's largest, batch "
        f"norms folded in or not. The rest: without those inside blocks, {rows[0]['test']:,} CIFAR-10 "
        "test images, nothing trained or measured anew."
    )
    return results.Table("Dead filters of ResNets", columns, tuple(lines), (note,))


if __name__ == "__main__":
    sys.exit(main())
