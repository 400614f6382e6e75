"""A model as an ONNX file that is known to compute what the model computes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.core.surgery import plan_of
from compressor.errors import ExportError, ExporterWarning, InputError
from compressor.export.arguments import (
    named_outputs,
    refuse_bfloat16,
    require_module,
    require_size,
    split_file,
)
from compressor.export.canonical import canonicalise
from compressor.export.checking import Agreement, check_draft, listing, run
from compressor.export.metadata import Metadata, digest_of, write_metadata
from compressor.export.slimming import slimmed
from compressor.export.writing import drafted
from compressor.runtimes.drafting import LOWEST_OPSET, cpu_copy, write_draft
from compressor.runtimes.examples import Axes, Example, bind
from compressor.runtimes.exporters import Exporter, Request
from compressor.runtimes.extras import require_onnx
from compressor.runtimes.norm_folding import norms_left
from compressor.runtimes.onnx_graph import Dims, opset_of

__all__ = ["OnnxReport", "onnx"]

logger = logging.getLogger(__name__)
_LARGEST_FILE_BYTES = 2**31 - 1


@dataclass(frozen=True)
class OnnxReport:
    """What was written, and how far onnxruntime was from torch.

    `inputs` and `outputs` hold names and sizes, free axes by name. Without a free axis the second
    run of `agreement` has other values of the same shape. `norms_left` are the batch norms that no layer
    beside them can take over exactly. `fallback` is why torch's newer exporter could not be used, where
    the older one took its place.
    """

    path: Path
    file_bytes: int
    opset: int
    nodes: int
    inputs: Mapping[str, Dims]
    outputs: Mapping[str, Dims]
    agreement: Agreement
    metadata: Metadata
    exporter: Exporter
    fallback: str | None = None
    norms_left: tuple[str, ...] = ()

    def __str__(self) -> str:
        ran = self.agreement
        lines = [
            f"{self.path}: {self.file_bytes:,} bytes, {self.nodes} nodes, opset {self.opset}; "
            f"{listing(self.inputs)} -> {listing(self.outputs)}",
            f"  onnxruntime agrees: relative error {ran.error:.0e} at {listing(ran.shapes)}, "
            f"{ran.second_error:.0e} at {listing(ran.second_shapes)}",
        ]
        if self.norms_left:
            lines.append(f"  batch norms that could not be folded: {', '.join(self.norms_left)}")
        if self.fallback is not None:
            lines.append(f"  written by torch's {self.exporter.value} exporter: {self.fallback}")
        return "\n".join(lines)


def onnx(
    model: nn.Module,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    opset: int = LOWEST_OPSET,
    dynamic: Axes = (0,),
    output_names: Sequence[str] | None = None,
    tolerance: float | None = None,
    metadata: Metadata | None = None,
    exporter: Exporter | None = None,
) -> OnnxReport:
    """Write `model` in eval mode as an ONNX file and return how well onnxruntime agrees with it.

    `args` are the example inputs, then the path: `onnx(model, x, "net.onnx")`; keyword inputs go
    into `kwargs`. Axes in `dynamic` stay free in every input that has them, (0, 2, 3) for images of
    any size; {0: "batch", 4: "time"} also names them, a dict gives them by input, {"x": (0, 2)}, () leaves
    none. The file is run at the
    example and at a second shape (and at odd sizes, where the model takes such), and only kept if all
    agree within `tolerance` (relative; default 1e-4, for half precision 1e-2). Inputs are named after the
    parameters of `forward`.

    Batch norms are folded where that is exact, the graph is slimmed, and `metadata` is written into the
    file, with the digest of the plan where `plan_of(model)` knows it. Neither stack traces, paths of this
    machine nor dates are in it: the same model gives the same bytes. The model stays as it is.

    `exporter` picks one of torch's two; by default the newer one writes the file, and where it fails the
    older one does, under the same checks and with an ExporterWarning.

    Raises ExportError when the model cannot be exported, a free axis became fixed, the file has another
    opset than asked, or the results differ; then no file is written, and one of an earlier export is left.
    InputError for arguments that make no sense, MissingExtraError when onnx, onnxscript, onnxslim or
    onnxruntime is absent.

    >>> import compressor as cp
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    >>> report = cp.export.onnx(net, torch.rand(1, 3, 8, 8), "net.onnx")  # doctest: +SKIP
    >>> print(report)                                                     # doctest: +SKIP
    net.onnx: 2,282 bytes, 3 nodes, opset 18; input [batch, 3, 8, 8] -> output [batch, 2, 4, 4]
      onnxruntime agrees: relative error 7e-08 at input [1, 3, 8, 8], 9e-08 at input [2, 3, 8, 8]
    """
    path, inputs = split_file(args, verb="onnx", suffix=".onnx")
    require_module(model, verb="onnx")
    require_size(model, largest_bytes=_LARGEST_FILE_BYTES)
    _check(opset, metadata, exporter, tolerance)
    require_onnx()
    example = bind(model, inputs, kwargs or {})
    axes = example.axes(dynamic)
    copy = cpu_copy(model)
    refuse_bfloat16(copy, example, runtime="onnxruntime")
    names = named_outputs(output_names, len(run(copy, example, "the example")))
    export = _Export(copy, example, axes, opset, names, tolerance, example.axis_names(dynamic))
    plan = plan_of(model)
    metadata = metadata or Metadata()
    if plan is not None:
        metadata = replace(metadata, plan_digest=digest_of(plan))
    with drafted(path) as target, torch.random.fork_rng(devices=[]):
        draft, fallback = export.written(target.parent, exporter)
        report = replace(_finished(draft, metadata, target), path=path)
    if fallback is not None:
        warnings.warn(
            f"torch's {Exporter.DYNAMO.value} exporter failed ({fallback}); {path} was written by its older "
            f"{draft.exporter.value} exporter and passed the same checks. To ask for that one from the "
            f"start: exporter={draft.exporter!r}",
            ExporterWarning,
            stacklevel=2,
        )
    return replace(report, fallback=fallback)


def _check(opset: object, metadata: object, exporter: object, tolerance: object) -> None:
    if tolerance is not None and not isinstance(tolerance, int | float):
        raise InputError(f"tolerance is a number such as 1e-4, got {tolerance!r}")
    if isinstance(opset, bool) or not isinstance(opset, int) or opset < LOWEST_OPSET:
        raise InputError(f"opset {opset!r}: torch exports opset {LOWEST_OPSET} or newer")
    if not isinstance(metadata, Metadata | None):
        raise InputError(f"metadata is an export.Metadata(classes=...), got {type(metadata).__name__}")
    if not isinstance(exporter, Exporter | None):
        raise InputError(f"exporter is one of {', '.join(map(repr, Exporter))}, got {exporter!r}")


@dataclass(frozen=True)
class _Draft:
    """A file that was checked, and what the check found."""

    path: Path
    exporter: Exporter
    agreement: Agreement


@dataclass(frozen=True, eq=False)
class _Export:
    """What is exported, and how."""

    model: nn.Module
    example: Example
    axes: Mapping[str, Sequence[int]]
    opset: int
    output_names: Sequence[str]
    tolerance: float | None
    axis_names: Mapping[str, Mapping[int, str]]

    def written(self, folder: Path, exporter: Exporter | None) -> tuple[_Draft, str | None]:
        """The draft of one exporter, or of the first that succeeds, then with why the first one did not."""
        if exporter is not None:
            return self._by(exporter, folder), None
        try:
            return self._by(Exporter.DYNAMO, folder), None
        except ExportError as error:
            failure = error
        try:
            return self._by(Exporter.TORCHSCRIPT, folder), str(failure)
        except ExportError as error:
            more = "" if str(error) == str(failure) else f". The older exporter does not help: {error}"
            raise ExportError(f"{failure}{more}") from failure

    def _by(self, exporter: Exporter, folder: Path) -> _Draft:
        import onnx as onnx_format

        plain = folder / f"{exporter.name}.onnx"
        request = Request(
            self.model, self._traceable(), self.axes, self.opset, self.output_names, self.axis_names
        )
        write_draft(request, plain, exporter)
        weights = self.model.state_dict().keys()
        slim = slimmed(plain, folder / f"{exporter.name}-slim.onnx", weights)
        fault: ExportError | None = None
        if slim is not None:
            try:
                return _Draft(slim, exporter, self._checked(slim))
            except ExportError as error:
                fault = error
        proto = onnx_format.load(str(plain))
        canonicalise(proto, weights)
        onnx_format.save(proto, str(plain))
        draft = _Draft(plain, exporter, self._checked(plain))
        if fault is not None:
            logger.warning("onnxslim spoils the graph, which stays as exported: %s", fault)
        return draft

    def _checked(self, path: Path) -> Agreement:
        return check_draft(self.model, self.example, self.axes, path, self.opset, self.tolerance)

    def _traceable(self) -> Example:
        """The example with two instead of one along free axes, where the model accepts that.

        An axis of size 1 broadcasts, so that a trace cannot tell it from no axis: a vision transformer
        traced at batch 1 keeps that 1 in its reshapes.
        """
        shapes = {
            name: tuple(
                2 if size == 1 and axis in self.axes[name] else size for axis, size in enumerate(shape)
            )
            for name, shape in self.example.shapes.items()
        }
        if shapes == self.example.shapes:
            return self.example
        wider = self.example.reshaped(shapes)
        try:
            run(self.model, wider, "a batch of two")
        except ExportError:
            return self.example
        return wider


def _finished(draft: _Draft, metadata: Metadata, path: Path) -> OnnxReport:
    """Write the draft with its metadata to `path`; the report of that file."""
    import onnx as onnx_format

    proto = onnx_format.load(str(draft.path))
    metadata = write_metadata(proto, metadata)
    onnx_format.save(proto, str(path))
    return OnnxReport(
        path=path,
        file_bytes=path.stat().st_size,
        opset=opset_of(proto),
        nodes=len(proto.graph.node),
        inputs=metadata.inputs,
        outputs=metadata.outputs,
        agreement=draft.agreement,
        metadata=metadata,
        exporter=draft.exporter,
        norms_left=norms_left(proto),
    )
