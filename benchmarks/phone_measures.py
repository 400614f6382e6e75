"""What the phone benchmark measures of a network's files: one function for each, by name in `MEASURES`.

Each maps the variants' files, and the example input, to plain numbers by variant; ratios are those of rounds
in which all variants took turns. One that this machine cannot do raises Missing, with what it lacks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import compressor as cp
from benchmarks import arm64
from benchmarks.phone_files import LEVELS
from benchmarks.zoo import Missing
from compressor.errors import MissingExtraError
from compressor.runtimes import OnnxRuntime, Optimization, Runtime, Target

__all__ = ["MEASURES", "Subject", "timings"]


@dataclass(frozen=True, eq=False)
class Subject:
    """The files of one network by variant, the baseline first, and how long to look at them."""

    paths: Mapping[str, Path]
    x: Tensor
    tested: tuple[Tensor, Tensor] | None
    rounds: int
    cache: str | None


Found = dict[str, dict[str, Any]]


def timings(targets: Mapping[str, Target], x: Tensor, runtime: Runtime, rounds: int) -> Found:
    """The timing of each target by its name, all of them in turn, speed-ups against the first."""
    found = cp.profiling.measure_latency([*targets.values()], [x], runtime=runtime, rounds=rounds)
    return {name: vars(timing) for name, timing in zip(targets, found.timings, strict=True)}


def _latency(optimization: Optimization) -> Callable[[Subject], Found]:
    runtime = OnnxRuntime(optimization=optimization)
    return lambda subject: timings(subject.paths, subject.x, runtime, subject.rounds)


def _wasm(subject: Subject) -> Found:
    try:
        found = cp.export.node_latency(subject.paths, subject.x, rounds=subject.rounds)
    except MissingExtraError as error:
        raise Missing(str(error)) from error
    names = ("ms", "speedup", "speedup_p10", "speedup_p90", "heap_bytes")
    return {model.name: {name: getattr(model, name) for name in names} for model in found.models}


def _arm64(subject: Subject) -> Found:
    counts = arm64.instructions([*subject.paths.values()], cache=subject.cache)
    first = next(iter(counts.values()))
    return {v: {"count": counts[p], "fewer": first / counts[p]} for v, p in subject.paths.items()}


def _memory(subject: Subject) -> Found:
    if sys.platform != "linux":
        raise Missing("the memory of a process is measured on Linux only")
    found = cp.profiling.memory([*subject.paths.values()], subject.x, runtime=OnnxRuntime())
    kept = {}
    for variant, footprint in zip(subject.paths, found.footprints, strict=True):
        parts = {"run": footprint.run, "total": footprint.total}
        kept[variant] = {f"{name}_bytes": part.bytes for name, part in parts.items() if part is not None}
    return kept


def _accuracy(subject: Subject) -> Found:
    """The share of test images whose class a file names; nothing for networks without labels."""
    if subject.tested is None:
        return {}
    images, labels = subject.tested
    found = {}
    for variant, path in subject.paths.items():
        session = OnnxRuntime().session(path, what=str(path))
        (name,) = session.inputs
        named = [int(session.run({name: x})[0].argmax()) for x in images.split(1)]
        right = sum(a == b for a, b in zip(named, labels.tolist(), strict=True))
        found[variant] = {"share": right / len(labels), "images": len(labels)}
    return found


MEASURES: dict[str, Callable[[Subject], Found]] = {
    **{level: _latency(optimization) for level, optimization in LEVELS.items()},
    "accuracy": _accuracy,
    "memory": _memory,
    "wasm": _wasm,
    "arm64": _arm64,
}
