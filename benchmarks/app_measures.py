"""What the file of a network takes in onnxruntime and in WebAssembly, time and memory, and what it names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from benchmarks.zoo import Missing
from compressor.errors import MissingExtraError
from compressor.export.bench import node_latency
from compressor.export.bench.web_runtime import program, web_runtime
from compressor.profiling import measure_latency, memory
from compressor.runtimes import OnnxRuntime, Optimization

__all__ = ["RUNTIMES", "check_machine", "costs_of_files", "named"]

# x86 lays out convolutions in blocks of 16 channels, phones do not: EXTENDED is closer to them.
RUNTIMES: Mapping[str, OnnxRuntime] = {
    "onnxruntime": OnnxRuntime(threads=1),
    "onnxruntime, no blocks": OnnxRuntime(threads=1, optimization=Optimization.EXTENDED),
}


def check_machine() -> None:
    """Raise Missing, before anything is trained, where this machine cannot measure it all."""
    if sys.platform != "linux":
        raise Missing("the memory of a process is measured on Linux only")
    if program("node") is None:
        raise Missing("WebAssembly is timed in node, which is not on PATH")
    try:
        web_runtime()
    except MissingExtraError as error:
        raise Missing(str(error)) from error


def named(file: Path, images: Tensor) -> npt.NDArray[np.int64]:
    """The class [N] that the file gives each image in onnxruntime."""
    session = RUNTIMES["onnxruntime"].session(file, what=file.name)
    (name,) = session.inputs
    found = [session.run({name: x})[0].argmax(dim=1) for x in images.contiguous().split(128)]
    return np.concatenate([part.numpy() for part in found])


def costs_of_files(files: Mapping[str, Path], images: Tensor, *, rounds: int | None) -> dict[str, Any]:
    """Time and memory of files by name, the first one the baseline, all on one image at a time.

    Times are interleaved medians in ms, with the speed-up over the baseline and its 10 % and 90 % quantile.
    """
    names, paths = list(files), list(files.values())
    found: dict[str, Any] = {name: {"file_bytes": path.stat().st_size} for name, path in files.items()}
    for runtime, by in RUNTIMES.items():
        taken = measure_latency(paths, [images[:1]], runtime=by, rounds=rounds, seconds=10.0)
        for name, timing in zip(names, taken.timings, strict=True):
            found[name][runtime] = {
                "ms": timing.ms,
                "speedup": [timing.speedup, timing.speedup_p10, timing.speedup_p90],
            }
    in_wasm = node_latency(dict(files), images.contiguous().numpy(), rounds=rounds or 120)
    for model in in_wasm.models:
        found[model.name]["wasm"] = {
            "ms": model.ms,
            "speedup": [model.speedup, model.speedup_p10, model.speedup_p90],
            "heap_bytes": model.heap_bytes,
        }
    held = memory(paths, images[:1], runtime=RUNTIMES["onnxruntime"])
    for name, footprint in zip(names, held.footprints, strict=True):
        assert footprint.total is not None and footprint.fixed is not None
        found[name]["process"] = {"total": footprint.total.bytes, "fixed": footprint.fixed.bytes}
    return found
