"""Small ONNX models written node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["conv", "model", "write"]


def conv(data: str, weight: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [data, weight], [output], name=f"node_{output}", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    *,
    inputs: Sequence[str] = ("x",),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    last = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "net", ends, [last], stored)
    domains = {"": 17} | {node.domain: 1 for node in nodes if node.domain}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(
        graph, opset_imports=opsets, functions=list(functions), producer_name="tests", producer_version="2"
    )


def write(proto: onnx.ModelProto, file: Path) -> Path:
    file.write_bytes(proto.SerializeToString())
    return file
