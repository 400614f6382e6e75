"""Tiny ONNX classifiers, written node by node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_net(
    path: Path,
    *,
    channels: int = 8,
    classes: int = 5,
    dims: tuple[int | str, ...] = ("batch", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    name: str = "x",
    operator: str = "Relu",
    seed: int = 0,
) -> Path:
    """Convolution, `operator`, mean over the image, linear layer: images `dims` to [batch, classes]."""
    random = np.random.default_rng(seed)
    weights = {
        "conv.weight": random.standard_normal((channels, 3, 3, 3), dtype=np.float32),
        "fc.weight": random.standard_normal((channels, classes), dtype=np.float32),
    }
    nodes = [
        helper.make_node("Cast", [name], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["real", "conv.weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node(operator, ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "fc.weight"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (dims[0], classes))],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
