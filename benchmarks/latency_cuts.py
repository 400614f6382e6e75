"""The cuts whose latency is compared: this library's budgets, and torch-pruning's ratios at the same MACs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import nn

import compressor as cp
from benchmarks.bisection import largest_within
from benchmarks.cifar import CHECKPOINTS
from benchmarks.phone_files import digest
from benchmarks.phone_nets import Net
from compressor.budget import Budget, Latency, Macs, where_it_pays
from compressor.profiling import LatencyTable
from compressor.search import LeastDrop, Sensitivity

__all__ = ["BASE", "Cuts", "made", "networks", "ours", "theirs"]

BASE = "not pruned"

_ASKED = 2  # batches
_RATIOS = (0.25, 0.5, 0.75, 0.9)
_BETWEEN_BLOCKS = ("conv1", "layer*.conv2")  # in ResNets for CIFAR: what writes the residual stream


def ours(
    fraction: float, net: Net, table: LatencyTable, sensitivity: Sensitivity | None
) -> dict[str, Budget]:
    """Budgets by name, each a fraction of the MACs, or of the latency where its name says so.

    *least drop*: by what the class scores of unlabelled images lose, where they mean something.
    *inside blocks*: the residual stream stays whole, where the network has option-A shortcuts.
    """
    order = net.order
    pays = where_it_pays(table, order)
    found: dict[str, Budget] = {
        "ours": Macs(fraction, order=order),
        "ours, multiples of 8": Macs(fraction, order=order, round_to=8),
        "ours, widths of the table": Macs(fraction, order=order, round_to=table),
        "ours, where it pays": Macs(fraction, order=pays, round_to=table),
        "ours, latency": Latency(fraction, table, order=order),
    }
    if sensitivity is not None:
        found |= {
            "ours, least drop": LeastDrop(sensitivity, Macs(fraction), round_to=table),
            "ours, least drop, latency": LeastDrop(sensitivity, Latency(fraction, table)),
        }
    if _has_blocks(net):
        inside = Macs(fraction, order=order, ignore=_BETWEEN_BLOCKS, round_to=table)
        found["ours, inside blocks, widths of the table"] = inside
    return found


def theirs(net: Net) -> dict[str, dict[str, Any]]:
    """Options of torch-pruning's magnitude pruner by name; it loses least accuracy `inside blocks`.

    Where weights are random it thins all layers alike, as ours do.
    """
    scopes: dict[str, dict[str, bool]] = {"": {"global_pruning": False}}
    if _has_blocks(net):
        scopes[", inside blocks"] = {"global_pruning": True, "inside": True}
    rounds = {"": {}, ", multiples of 8": {"round_to": 8}}
    return {
        f"torch-pruning{scope}{rounded}": {**options, **more}
        for scope, options in scopes.items()
        for rounded, more in rounds.items()
    }


def _has_blocks(net: Net) -> bool:
    return net.name in CHECKPOINTS


@dataclass(frozen=True, eq=False)
class Cuts:
    """The networks by the name of the cut, the unpruned one first, and the files of them."""

    net: Net
    models: Mapping[str, nn.Module]
    paths: Mapping[str, Path]
    facts: Mapping[str, Mapping[str, Any]]
    rounds: int


def made(net: Net, fraction: float, table: LatencyTable, folder: Path, *, rounds: int) -> Cuts:
    """All cuts of a network at a fraction, as networks and as files in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    models, facts = networks(net, fraction, table, cache=folder.parent)
    paths = {name: folder / f"{name.replace(', ', '-').replace(' ', '_')}.onnx" for name in models}
    for name, model in models.items():
        cp.export.onnx(model, net.x, paths[name], dynamic=())
        facts[name] |= {"bytes": paths[name].stat().st_size, "sha256": digest(paths[name])}
    return Cuts(net, models, paths, facts, rounds)


def networks(
    net: Net, fraction: float, table: LatencyTable, *, cache: Path
) -> tuple[dict[str, nn.Module], dict[str, dict[str, Any]]]:
    """All cuts by name, the unpruned network first, and what is known of each; ours are verified."""
    graph = cp.capture(net.model, net.x)
    scores = cp.score(graph, cp.scoring.DEFAULT)
    models: dict[str, nn.Module] = {BASE: net.model}
    facts: dict[str, dict[str, Any]] = {BASE: {}}
    for name, budget in ours(fraction, net, table, _sensitivity(net, cache)).items():
        plan = cp.plan(scores, budget)
        models[name] = cp.apply(net.model, plan)
        cp.verify(net.model, models[name], plan, net.x, graph=graph)
        facts[name] = {"promised": table.predict(graph) / table.predict(graph, plan)}
    for name, options in theirs(net).items():
        try:
            models[name] = largest_within(fraction, net.model, net.x, partial(_cut_by_ratio, net, options))
            facts[name] = {}
        except Exception as error:  # a cut that it cannot make is a result, too
            facts[name] = {"failure": f"{type(error).__name__}: {error}"}
    for name, model in models.items():
        found = cp.capture(model, net.x)
        facts[name] |= {
            "macs": cp.profiling.macs(found).total(),
            "params": cp.profiling.params(found).total(),
        }
    return models, facts


def _sensitivity(net: Net, folder: Path) -> Sensitivity | None:
    """What each group loses alone, kept in the folder; None for random weights, which mean nothing."""
    if net.weights != "trained":
        return None
    images = net.batches[:_ASKED]
    return cp.search.sensitivity(
        net.model,
        net.x,
        evaluate=cp.search.OutputFidelity(net.model, images),
        ratios=_RATIOS,
        cache=folder / f"{net.name}-sensitivity.jsonl",
        name=f"class scores of {sum(map(len, images))} images",
        progress=False,
    )


def _cut_by_ratio(net: Net, options: Mapping[str, Any], ratio: float) -> nn.Module | None:
    """A copy cut by torch-pruning; None where it is left without channels and cannot run."""
    small = copy.deepcopy(net.model)
    # Its pruner has to be told which layer writes the class scores.
    ignored = [module for module in small.modules() if isinstance(module, nn.Linear)][-1:]
    if "inside" in options:
        named = small.named_modules()
        ignored += [m for name, m in named if any(fnmatch(name, p) for p in _BETWEEN_BLOCKS)]
    options = {name: value for name, value in options.items() if name != "inside"}
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.MagnitudePruner(
        small, net.x, importance=importance, pruning_ratio=ratio, ignored_layers=ignored, **options
    )
    pruner.step()
    small.zero_grad()
    small.eval()
    try:
        with torch.no_grad():
            small(net.x)
    except RuntimeError:
        return None
    return small
