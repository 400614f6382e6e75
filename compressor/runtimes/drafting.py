"""The bare ONNX file: what torch's exporter wrote, tidied up."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from compressor.core.surgery import cut_copy
from compressor.runtimes.exporters import Exporter, Request, export_with
from compressor.runtimes.norm_folding import fold_norms
from compressor.runtimes.onnx_graph import name_axes, strip

__all__ = ["LOWEST_OPSET", "cpu_copy", "write_draft", "write_empty"]

LOWEST_OPSET = 18  # the exporter writes 18 where less is asked, without a word


def cpu_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode on the CPU: an exporter may leave marks on the model it is given."""
    return cut_copy(model, (), lambda tensor, _cuts: tensor.detach().cpu()).eval()


def write_draft(request: Request, path: Path, exporter: Exporter = Exporter.DYNAMO) -> None:
    """Write the file, without metadata, with named axes and folded norms; no check but ONNX's own."""
    import onnx as onnx_format

    export_with(exporter, request, path)
    proto = onnx_format.load(str(path))
    name_axes(proto.graph, request.axis_names)
    strip(proto)
    fold_norms(proto)
    onnx_format.checker.check_model(proto)
    onnx_format.save(proto, str(path))


def write_empty(path: Path) -> None:
    """Write the file of a model that gives back its input `x` [1]: what it costs, any model costs."""
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", [x], [y])
    opset = helper.make_opsetid("", LOWEST_OPSET)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))
