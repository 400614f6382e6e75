"""A model as an ONNX file that is known to compute what the model computes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import ExportError, InputError
from compressor.export.checking import Agreement, check_draft, listing, run
from compressor.runtimes.drafting import LOWEST_OPSET, cpu_copy, write_draft
from compressor.runtimes.examples import Axes, Example, bind
from compressor.runtimes.extras import require_onnx
from compressor.runtimes.onnx_graph import Dims, dims_of

__all__ = ["OnnxReport", "onnx"]

_LARGEST_FILE_BYTES = 2**31 - 1


@dataclass(frozen=True)
class OnnxReport:
    """What was written, and how far onnxruntime was from torch.

    `inputs` and `outputs` hold names and sizes, free axes by name. Without a free axis the second
    run of `agreement` has other values of the same shape.
    """

    path: Path
    file_bytes: int
    opset: int
    nodes: int
    inputs: Mapping[str, Dims]
    outputs: Mapping[str, Dims]
    agreement: Agreement

    def __str__(self) -> str:
        ran = self.agreement
        return (
            f"{self.path}: {self.file_bytes:,} bytes, {self.nodes} nodes, opset {self.opset}; "
            f"{listing(self.inputs)} -> {listing(self.outputs)}\n"
            f"  onnxruntime agrees: relative error {ran.error:.0e} at {listing(ran.shapes)}, "
            f"{ran.second_error:.0e} at {listing(ran.second_shapes)}"
        )


def onnx(
    model: nn.Module,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    opset: int = LOWEST_OPSET,
    dynamic: Axes = (0,),
    output_names: Sequence[str] | None = None,
    tolerance: float | None = None,
) -> OnnxReport:
    """Write `model` in eval mode as an ONNX file and return how well onnxruntime agrees with it.

    `args` are the example inputs, then the path: `onnx(model, x, "net.onnx")`; keyword inputs go
    into `kwargs`. Axes in `dynamic` stay free in every input that has them, (0, 2, 3) for images of
    any size; a dict gives them by input, {"x": (0, 2)}, () leaves none. The file is run at the
    example and at a second shape, and only kept if both agree within `tolerance` (relative; default
    1e-4, for half precision 1e-2). Inputs are named after the parameters of `forward`.

    Neither stack traces nor paths of this machine are in the file. The model stays as it is.

    Raises ExportError when the model cannot be exported, a free axis became fixed, or the results
    differ; then no file is written, and one of an earlier export is left. InputError for arguments
    that make no sense, MissingExtraError when onnx, onnxscript or onnxruntime is absent.

    >>> import compressor as cp
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    >>> report = cp.export.onnx(net, torch.rand(1, 3, 8, 8), "net.onnx")  # doctest: +SKIP
    >>> print(report)                                                     # doctest: +SKIP
    net.onnx: 2,161 bytes, 3 nodes, opset 18; input [batch, 3, 8, 8] -> output [batch, 2, 4, 4]
      onnxruntime agrees: relative error 7e-08 at input [1, 3, 8, 8], 9e-08 at input [2, 3, 8, 8]
    """
    path, inputs = _split_path(args)
    _check(model, opset)
    require_onnx()
    example = bind(model, inputs, kwargs or {})
    axes = example.axes(dynamic)
    copy = cpu_copy(model)
    _refuse_bfloat16(copy, example)
    names = _output_names(output_names, len(run(copy, example, "the example")))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=path.parent) as aside:
            draft = Path(aside) / path.name
            write_draft(copy, _traceable(copy, example, axes), axes, draft, opset, names)
            agreement = check_draft(copy, example, axes, draft, tolerance)
            os.replace(draft, path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error
    return _report(path, agreement)


# -- arguments -----------------------------------------------------------------------------------


def _split_path(args: Sequence[Any]) -> tuple[Path, tuple[Any, ...]]:
    if not args or not isinstance(args[-1], (str, os.PathLike)):
        raise InputError(
            "the last positional argument is the path of the file, as in onnx(model, x, "
            '"net.onnx"); got '
            f"{type(args[-1]).__name__ if args else 'none'}"
        )
    return Path(args[-1]), tuple(args[:-1])


def _check(model: nn.Module, opset: int) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"onnx needs a torch.nn.Module, got {type(model).__name__}")
    if opset < LOWEST_OPSET:
        raise InputError(f"opset {opset}: torch exports opset {LOWEST_OPSET} or newer")
    weight_bytes = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    if weight_bytes >= _LARGEST_FILE_BYTES:
        raise ExportError(
            f"{type(model).__name__} has {weight_bytes:,} bytes of weights, and a single ONNX file "
            f"holds less than 2 GiB; prune more, or export model.half()"
        )


def _refuse_bfloat16(model: nn.Module, example: Example) -> None:
    for name, tensor in {**dict(model.named_parameters()), **example.tensors}.items():
        if tensor.dtype == torch.bfloat16:
            raise ExportError(
                f"{name!r} is bfloat16, which onnxruntime does not compute on a CPU; export "
                f"model.float() with float32 inputs"
            )


def _output_names(given: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if given is None:
        return ("output",) if count == 1 else tuple(f"output_{i}" for i in range(count))
    if len(given) != count or len(set(given)) != count or isinstance(given, str):
        raise InputError(f"output_names must be {count} different names, one for each output, got {given!r}")
    return tuple(given)


def _traceable(model: nn.Module, example: Example, axes: Mapping[str, Sequence[int]]) -> Example:
    """The example with two instead of one along free axes, where the model accepts that.

    An axis of size 1 broadcasts, so that a trace cannot tell it from no axis: a vision transformer
    traced at batch 1 keeps that 1 in its reshapes.
    """
    shapes = {
        name: tuple(2 if size == 1 and axis in axes[name] else size for axis, size in enumerate(shape))
        for name, shape in example.shapes.items()
    }
    if shapes == example.shapes:
        return example
    wider = example.reshaped(shapes)
    try:
        run(model, wider, "a batch of two")
    except ExportError:
        return example
    return wider


def _report(path: Path, agreement: Agreement) -> OnnxReport:
    import onnx as onnx_format

    proto = onnx_format.load(str(path))
    return OnnxReport(
        path=path,
        file_bytes=path.stat().st_size,
        opset=next(entry.version for entry in proto.opset_import if entry.domain == ""),
        nodes=len(proto.graph.node),
        inputs={value.name: dims_of(value) for value in proto.graph.input},
        outputs={value.name: dims_of(value) for value in proto.graph.output},
        agreement=agreement,
    )
