"""The files that the phone benchmark measures: a network as it is and cut, in float32 and in int8."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import compressor as cp
from benchmarks.phone_nets import Net
from benchmarks.results import write_json
from compressor.budget import Macs, where_it_pays
from compressor.core.graph import Graph
from compressor.errors import ExportError
from compressor.runtimes import OnnxRuntime, Optimization

__all__ = ["BASE", "LEVELS", "Made", "aware", "int8_of", "made", "plain"]

BASE = "baseline"
LEVELS = {"default": Optimization.ALL, "extended": Optimization.EXTENDED}
_FRACTION = 0.5
_MANIFEST = "manifest.json"


def aware(level: str) -> str:
    """The name of the cut whose widths and layers follow the latency table of the runtime at that level."""
    return f"pruned, {level}"


def plain(level: str) -> str:
    """The name of the cut with as many MACs as `aware(level)`, and no look at the runtime."""
    return f"unrounded, {level}"


def int8_of(name: str) -> str:
    """The name of a variant in int8."""
    return f"{name}, int8"


@dataclass(frozen=True)
class Made:
    """Paths by variant, and what is known of each: MACs, parameters, bytes, digest, fidelity of int8."""

    paths: dict[str, Path]
    facts: dict[str, dict[str, Any]]


def made(net: Net, folder: Path, *, fresh: bool = False) -> Made:
    """The files in `folder`, written now if `fresh`, or unless an earlier run left them whole."""
    found = None if fresh else _kept(folder)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MANIFEST).unlink(missing_ok=True)
        found = _make(net, folder)
        write_json(
            folder / _MANIFEST, {"files": {k: p.name for k, p in found.paths.items()}, "facts": found.facts}
        )
    return found


def digest(path: Path) -> str:
    """What tells a file from another one."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _kept(folder: Path) -> Made | None:
    if not (folder / _MANIFEST).is_file():
        return None
    manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    paths = {variant: folder / name for variant, name in manifest["files"].items()}
    facts = manifest["facts"]
    whole = all(path.is_file() and digest(path) == facts[v]["sha256"] for v, path in paths.items())
    return Made(paths, facts) if whole else None


def _make(net: Net, folder: Path) -> Made:
    graph = cp.capture(net.model, net.x)
    scores = cp.score(graph, cp.scoring.DEFAULT)
    paths: dict[str, Path] = {}
    facts: dict[str, dict[str, Any]] = {}

    def write(variant: str, model: nn.Module) -> None:
        paths[variant] = folder / f"{variant.replace(', ', '-')}.onnx"
        cp.export.onnx(model, net.x, paths[variant], dynamic=())
        found = cp.capture(model, net.x)
        facts[variant] = {
            "macs": cp.profiling.macs(found).total(),
            "params": cp.profiling.params(found).total(),
            "peak_activation_bytes": cp.profiling.peak_activation_bytes(found).total(),
            **_of_file(paths[variant]),
        }

    write(BASE, net.model)
    for level, optimization in LEVELS.items():
        table = cp.profiling.latency_table(graph, runtime=OnnxRuntime(optimization=optimization))
        plan = cp.plan(scores, Macs(_FRACTION, order=where_it_pays(table, net.order), round_to=table))
        write(aware(level), _cut(net, graph, plan))
        facts[aware(level)]["promised"] = table.predict(graph) / table.predict(graph, plan)
        left = facts[aware(level)]["macs"] / facts[BASE]["macs"]
        write(plain(level), _cut(net, graph, cp.plan(scores, Macs(left, order=net.order))))
    for variant in (BASE, aware("default")):
        _quantise(net, variant, folder, paths, facts)
    return Made(paths, facts)


def _cut(net: Net, graph: Graph, plan: cp.Plan) -> nn.Module:
    small = cp.apply(net.model, plan)
    cp.verify(net.model, small, plan, net.x, graph=graph)
    if net.weights == "trained":  # what is quantised is to compute something sensible
        cp.recovery.reconstruct_(small, net.model, net.batches, hold=True)
    return small


def _quantise(
    net: Net, variant: str, folder: Path, paths: dict[str, Path], facts: dict[str, dict[str, Any]]
) -> None:
    """Add the int8 form of a variant, or under its name why there is none."""
    name = int8_of(variant)
    path = folder / f"{name.replace(', ', '-')}.onnx"
    # What a random network says of noise hardly varies, so little noise is much.
    random = cp.export.Acceptance(min_sqnr_db=0.0, min_agreement=0.0)
    checks = cp.export.Acceptance() if net.weights == "trained" else random
    try:
        report = cp.export.int8(paths[variant], net.singles, path, checks=checks, even_if_slower=True)
    except ExportError as error:  # not accurate enough: a result, too
        facts[name] = {"refused": str(error).replace(f"{folder}/", "")}
        return
    paths[name] = path
    (sqnr,) = report.fidelity.sqnr_db.values()
    agreement = [*report.fidelity.agreement.values()]
    facts[name] = {**_of_file(path), "sqnr_db": sqnr, "agreement": agreement[0] if agreement else None}


def _of_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": digest(path)}
