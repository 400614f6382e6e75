"""torch's two exporters to ONNX, kept quiet: the one that captures a program, and the one that traces."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import torch
from torch import nn

from compressor.core.specialised import branching_modules
from compressor.core.tape import record
from compressor.errors import CaptureError, ExportError
from compressor.runtimes.examples import Example

__all__ = ["Exporter", "Request", "export_with", "first_line", "quiet"]

_NOISY = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir", "onnxslim")
# What the tracer says where Python read numbers: a list or an array always shows values of a tensor;
# a single number may be a size, which is a tensor to it as well.
_VALUES = re.compile(r"Converting a tensor to a (Python list|NumPy array)")
_NUMBER = re.compile(r"Converting a tensor to a Python (boolean|integer|float|number|index)")


class Exporter(Enum):
    """Which of torch's exporters writes a file; the value is the name torch gives to it.

    DYNAMO captures the model with `torch.export`, knows which axes can vary and refuses what it cannot
    follow; it takes seconds. TORCHSCRIPT (`dynamo=False`) traces one run in a tenth of the time: a
    forward that branches on values is refused here, as a trace holds one branch without a word.
    """

    DYNAMO = "torch.export"
    TORCHSCRIPT = "TorchScript"

    def __repr__(self) -> str:
        return f"Exporter.{self.name}"


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be exported: a model on an example, with `axes` of its inputs that stay free.

    `axis_names` are names for some of them by input; others get one that fits their place.
    """

    model: nn.Module
    example: Example
    axes: Mapping[str, Sequence[int]]
    opset: int
    output_names: Sequence[str]
    axis_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def export_with(exporter: Exporter, request: Request, path: Path) -> None:
    """Write the file as the exporter does; raises ExportError with its reason where it cannot."""
    write = _with_dynamo if exporter is Exporter.DYNAMO else _with_torchscript
    try:
        with quiet():
            write(request, path)
    except ExportError:
        raise
    except Exception as error:
        hint = ". If the message is about a size, try dynamic=(0,) or dynamic=()"
        raise ExportError(
            f"torch's {exporter.value} exporter cannot take {type(request.model).__name__}: {_cause(error)}"
            f"{hint if exporter is Exporter.DYNAMO else ''}"
        ) from error


def _with_dynamo(request: Request, path: Path) -> None:
    args, kwargs = request.example.call
    free = request.example.mapped(lambda name, _: dict.fromkeys(request.axes[name], torch.export.Dim.AUTO))
    torch.onnx.export(
        request.model,
        args,
        str(path),
        kwargs=kwargs,
        dynamo=True,
        external_data=False,
        opset_version=request.opset,
        dynamic_shapes=free if any(request.axes.values()) else None,
        input_names=list(request.example.tensors),
        output_names=list(request.output_names),
        verbose=False,
    )


def _with_torchscript(request: Request, path: Path) -> None:
    args, kwargs = request.example.call
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.onnx.export(
            request.model,
            args,
            str(path),
            kwargs=kwargs,
            dynamo=False,
            opset_version=request.opset,
            dynamic_axes=_symbols(request.example, request.axes),
            input_names=list(request.example.tensors),
            output_names=list(request.output_names),
        )
    _refuse_frozen_values(request.model, request.example, [str(warning.message) for warning in caught])


def _symbols(example: Example, axes: Mapping[str, Sequence[int]]) -> dict[str, dict[int, str]]:
    """A symbol for every free axis; axes of one place and size share it, as batches do."""
    shapes = example.shapes
    return {name: {axis: f"s{axis}_{shapes[name][axis]}" for axis in wanted} for name, wanted in axes.items()}


def _refuse_frozen_values(model: nn.Module, example: Example, said: Sequence[str]) -> None:
    if any(map(_VALUES.match, said)):
        why = "forward turns a tensor into a list or an array"
    elif any(map(_NUMBER.match, said)):
        args, kwargs = example.call
        try:
            modules = branching_modules(record(model, args, kwargs))
        except CaptureError as error:
            raise ExportError(
                f"forward reads numbers, and whether they are sizes or values could not be seen: {error}"
            ) from error
        if not modules:
            return
        why = f"forward of {modules[0] or type(model).__name__!r} reads a number that depends on the inputs"
    else:
        return
    raise ExportError(
        f"torch's TorchScript exporter follows one run of {type(model).__name__}, and {why} (`if x.mean() > "
        f"0`, `.item()`): the file would hold what that number was for the example. Write the choice with "
        f"tensors (torch.where, a mask)"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep progress, warnings and logging from the user; run attention in its plain form."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        torch.backends.mha.set_fastpath_enabled(False)
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """The exception at the bottom of the exporter's stack of them, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def first_line(error: BaseException) -> str:
    """The kind of an exception of others, and the first line of what it says.

    >>> first_line(ValueError("a\\nb")), first_line(KeyError())
    ('ValueError: a', 'KeyError: no message')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
