"""The bare ONNX file: torch's exporter, kept quiet, and its output tidied up."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import nn

from compressor.core.surgery import cut_copy
from compressor.errors import ExportError
from compressor.runtimes.examples import Example
from compressor.runtimes.onnx_graph import name_axes, strip

__all__ = ["LOWEST_OPSET", "cpu_copy", "write_draft", "write_empty"]

LOWEST_OPSET = 18  # the exporter writes 18 where less is asked, without a word
_NOISY = ("torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir")


def cpu_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode on the CPU: an exporter may leave marks on the model it is given."""
    return cut_copy(model, (), lambda tensor, _cuts: tensor.detach().cpu()).eval()


def write_draft(
    model: nn.Module,
    example: Example,
    axes: Mapping[str, Sequence[int]],
    path: Path,
    opset: int,
    output_names: Sequence[str],
) -> None:
    """Write the file, without metadata and with named axes; no check but ONNX's own."""
    import onnx as onnx_format

    args, kwargs = example.call
    free = example.mapped(lambda name, _: dict.fromkeys(axes[name], torch.export.Dim.AUTO))
    try:
        with _quiet():
            torch.onnx.export(
                model,
                args,
                str(path),
                kwargs=kwargs,
                dynamo=True,
                external_data=False,
                opset_version=opset,
                dynamic_shapes=free if any(axes.values()) else None,
                input_names=list(example.tensors),
                output_names=list(output_names),
                verbose=False,
            )
    except Exception as error:
        raise ExportError(
            f"torch cannot export {type(model).__name__} to ONNX: {_cause(error)}. If the message "
            f"is about a size, try dynamic=(0,) or dynamic=()"
        ) from error
    proto = onnx_format.load(str(path))
    name_axes(proto.graph)
    strip(proto)
    onnx_format.checker.check_model(proto)
    onnx_format.save(proto, str(path))


def write_empty(path: Path) -> None:
    """Write the file of a model that gives back its input `x` [1]: what it costs, any model costs."""
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", [x], [y])
    opset = helper.make_opsetid("", LOWEST_OPSET)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))


@contextmanager
def _quiet() -> Iterator[None]:
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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
