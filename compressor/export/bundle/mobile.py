"""One call from a model to the folder that an app is built with."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.core.surgery import plan_of
from compressor.errors import ExportError, QuantisationWarning
from compressor.export.arguments import require_module, split_path
from compressor.export.bench import bench_page
from compressor.export.bench.web_runtime import web_runtime
from compressor.export.bundle.manifest import FORMAT, MANIFEST, manifest_of, names_in
from compressor.export.bundle.report import Bundle, moved
from compressor.export.files.comparing import compare_files
from compressor.export.files.feeds import read_feeds
from compressor.export.files.onnxruntime_tools import require_tools
from compressor.export.files.sources import Source, read_source
from compressor.export.low_precision.accepting import STANDARD, Acceptance
from compressor.export.low_precision.quantising import dynamic_int8, int8, why_slower
from compressor.export.metadata import Metadata
from compressor.export.onnx import OnnxReport, onnx
from compressor.export.ort_mobile.ort_format import OrtReport, ort
from compressor.export.writing import replaceable, replaced
from compressor.profiling import guard, profile
from compressor.runtimes.drafting import LOWEST_OPSET
from compressor.runtimes.examples import Axes, bind

__all__ = ["mobile"]

_PAGE_SAMPLES = 32
_MOST_EXAMPLES = 512


def mobile(
    model: nn.Module,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    calibration: Iterable[object] | None = None,
    held_out: Iterable[object] | None = None,
    baseline: nn.Module | None = None,
    metadata: Metadata | None = None,
    dynamic: Axes = (0,),
    opset: int = LOWEST_OPSET,
    checks: Acceptance = STANDARD,
    page: bool = True,
    progress: Callable[[str], object] | None = None,
) -> Bundle:
    """Write all that an app needs of `model` into one folder, every file checked; return what is in it.

    `args` are the example inputs, then the folder: `mobile(small, x, "out/", calibration=loader)`. In it are

    - `model.onnx`, verified against `model` (see `onnx`), and `model.ort`, the same for onnxruntime's mobile
      builds, with the list of the operators it needs; `model.fixed.onnx` with the example's shapes (a free
      batch is 1), for NNAPI and CoreML, and its .ort where one of them would run it;
    - with `calibration` (batches as of a DataLoader) `model.int8.onnx` and its .ort: `int8` where most
      weights are of convolutions and dense layers, `dynamic_int8` where most are of LSTMs; a network of 3-D
      convolutions, which int8 makes slower, gets none, with a QuantisationWarning;
    - `plan.json`, where `plan_of(model)` knows how it was pruned;
    - `bench/`, a page that times `baseline` (the original, say), model.onnx and model.int8.onnx on the phone
      itself, on the first calibration examples (`page=False` leaves it out);
    - `manifest.json`: checksum and bytes of every file, shapes, normalisation, classes, costs, agreement.

    Where a smaller model is not faster than its `baseline`, or gains far less than its MACs let one hope, a
    LatencyWarning says so, and which widths would be. The comparison in the result is run on `held_out` where
    given, which may hold labels, else on what it was calibrated on, else on the example. A second run writes
    the same bytes, but for .ort files, whose order onnxruntime draws anew, and their checksums. An earlier
    bundle is replaced where nothing else is in its folder.

    Raises ExportError where a file cannot be made, written or does not compute the same, InputError for
    arguments that make no sense, MissingExtraError where an extra is absent. Nothing is left then, and an
    earlier bundle stays as it was.

    >>> import compressor as cp
    >>> small = cp.prune(model, x, budget=cp.budget.Macs(0.5))                 # doctest: +SKIP
    >>> print(cp.export.mobile(small, x, "out", calibration=loader, baseline=model))  # doctest: +SKIP
    """
    folder, inputs = split_path(args, kind="folder", example='mobile(model, x, "out")')
    require_module(model, verb="mobile")
    if baseline is not None:
        require_module(baseline, verb="mobile(baseline=...)")
    require_tools()
    if page:
        web_runtime()  # before the work, not after it
    if not replaceable(folder, MANIFEST, FORMAT):
        raise ExportError(
            f"{folder} exists and is no bundle, or holds other things beside it, so it is left as it is; "
            "give a new or empty folder"
        )
    say = progress or (lambda _: None)
    write = partial(_write, args=inputs, kwargs=kwargs or {}, dynamic=dynamic, opset=opset, say=say)
    with replaced(folder) as whole, tempfile.TemporaryDirectory(prefix="compressor-") as scratch:
        written = write(model, whole / "model.onnx", metadata)
        source = read_source(written.path)
        given = [bind(model, inputs, kwargs or {}).tensors] if calibration is None else calibration
        batches = _in_memory(source, given, "the example" if calibration is None else "calibration")
        left_out = {}
        slower = None if calibration is None else why_slower(source)
        quantised = None
        if slower is not None:
            left_out["model.int8.onnx"] = slower
            warnings.warn(f"{folder} gets no model.int8.onnx: {slower}", QuantisationWarning, stacklevel=2)
        elif calibration is not None:
            say("calibrating and writing model.int8.onnx")
            quantise = dynamic_int8 if _mostly_recurrent(source) else int8
            quantised = quantise(written.path, batches, whole / "model.int8.onnx", checks=checks)
        files = [written.path] if quantised is None else [written.path, quantised.path]
        say("converting to .ort")
        converted = _converted(written, files, batches, whole)
        plan = plan_of(model)
        if plan is not None:
            plan.save(whole / "plan.json")
        if baseline is not None:
            files.insert(0, write(baseline, Path(scratch) / "baseline.onnx", None).path)
        say("comparing the files")
        judged = batches if held_out is None else held_out
        comparison = compare_files(files, judged, runtime=checks.runtime, seconds=checks.seconds)
        gain = None
        if baseline is not None:
            both = replace(comparison.latency, timings=comparison.latency.timings[:2])
            gain = guard(baseline, model, *inputs, kwargs=kwargs, runtime=checks.runtime, measured=both)
        shown = None
        if page:
            say("writing the bench page")
            samples = _samples(source, batches) if calibration is not None else None
            shown = bench_page(whole / "bench", files, inputs=samples, title=type(model).__name__)
        costs = profile(model, *inputs, **(kwargs or {}))
        said = manifest_of(whole, costs, written, quantised, converted, left_out)
        text = json.dumps(said, indent=2, ensure_ascii=False) + "\n"
        (whole / MANIFEST).write_text(text, encoding="utf-8")
        sizes = {name: (whole / name).stat().st_size for name in names_in(whole)}
        found = Bundle(folder, sizes, written, quantised, converted, shown, comparison, left_out, gain)
    return moved(moved(found, whole, folder), Path(scratch), Path())


def _write(
    model: nn.Module,
    path: Path,
    metadata: Metadata | None,
    *,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dynamic: Axes,
    opset: int,
    say: Callable[[str], object],
) -> OnnxReport:
    say(f"writing {path.name}")
    return onnx(model, *args, path, kwargs=kwargs, dynamic=dynamic, opset=opset, metadata=metadata)


def _in_memory(source: Source, batches: Iterable[object], what: str) -> list[dict[str, Tensor]]:
    """The first examples as mappings of tensors: several files need them, a generator lasts for one."""
    feeds = read_feeds(source, batches, what, max_examples=_MOST_EXAMPLES)
    return [{name: torch.from_numpy(array) for name, array in batch.items()} for batch in feeds]


def _mostly_recurrent(source: Source) -> bool:
    """Whether more weights are read by LSTMs than by convolutions and dense layers."""
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in source.proto.graph.initializer}
    read = {"LSTM": 0, "other": 0}
    for node in source.proto.graph.node:
        kind = "LSTM" if node.op_type == "LSTM" else "other"
        read[kind] += sum(sizes.get(name, 0) for name in node.input)
    return read["LSTM"] > read["other"]


def _converted(
    written: OnnxReport, files: Sequence[Path], batches: Sequence[Mapping[str, Tensor]], folder: Path
) -> tuple[OrtReport, ...]:
    """The .ort files, of the float32 file with fixed shapes as well."""
    ran = written.agreement.shapes
    fixed = {
        name: tuple(
            dim if isinstance(dim, int) else 1 if axis == 0 else ran[name][axis]
            for axis, dim in enumerate(dims)
        )
        for name, dims in written.inputs.items()
    }
    return tuple(
        ort(file, batches, folder, shapes=fixed if number == 0 else None) for number, file in enumerate(files)
    )


def _samples(source: Source, batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor] | None:
    """The first examples for the page; None, so that it draws its own, where an input has no free batch."""
    if not all(dims and isinstance(dims[0], str) for dims in source.inputs.values()):
        return None
    return {name: torch.cat([batch[name] for batch in batches])[:_PAGE_SAMPLES] for name in source.inputs}
