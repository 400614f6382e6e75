"""Batch norms in ONNX graphs: folded where that is exact, left and named where it is not."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compressor.runtimes.norm_folding import fold_norms, norms_left


def trained(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3.0)
            nn.init.uniform_(module.weight, -2, 2)
            nn.init.normal_(module.bias)
    return model.eval()


def traced(model: nn.Module, x: Tensor, folder: Path) -> onnx.ModelProto:
    """The graph as the tracer leaves it without its own folding: every batch norm is still there."""
    path = folder / "traced.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (x,),
            str(path),
            dynamo=False,
            opset_version=18,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return onnx.load(str(path))


def run(proto: onnx.ModelProto, x: Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return np.asarray(found)


FOLDED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "behind a convolution": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), (2, 4, 7, 7)),
    "behind a depthwise one without bias": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, padding=1, bias=False), nn.BatchNorm2d(4)),
        (2, 4, 7, 7),
    ),
    "behind a grouped transposed one": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, groups=2), nn.BatchNorm2d(6)),
        (2, 4, 5, 5),
    ),
    "behind a 3-D transposed one": (
        lambda: nn.Sequential(nn.ConvTranspose3d(2, 3, 2, 2, bias=False), nn.BatchNorm3d(3)),
        (1, 2, 3, 4, 5),
    ),
    "behind a matrix": (lambda: nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)), (4, 5)),
    "behind a matrix without bias": (
        lambda: nn.Sequential(nn.Linear(5, 3, bias=False), nn.BatchNorm1d(3)),
        (4, 5),
    ),
    "before a matrix": (lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)), (4, 5)),
    "before a matrix without bias": (
        lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3, bias=False)),
        (4, 5),
    ),
    "before a grouped convolution without padding": (
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2)),
        (2, 4, 7, 7),
    ),
    "on both sides": (
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)),
        (2, 4, 7, 7),
    ),
}


@pytest.mark.parametrize("case", FOLDED)
def test_a_norm_beside_a_layer_goes_into_it(case: str, tmp_path: Path) -> None:
    make, shape = FOLDED[case]
    model, x = trained(make()), torch.randn(shape)
    proto = traced(model, x, tmp_path)
    norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    assert Counter(node.op_type for node in proto.graph.node)["BatchNormalization"] == norms
    assert fold_norms(proto) == norms
    onnx.checker.check_model(proto)
    assert {node.op_type for node in proto.graph.node} <= {"Conv", "ConvTranspose", "Gemm", "Transpose"}
    assert norms_left(proto) == ()
    with torch.no_grad():
        np.testing.assert_allclose(run(proto, x), model(x).numpy(), rtol=1e-4, atol=1e-5)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        result: Tensor = self.norm(y) + y
        return result


class Twice(nn.Module):
    """One convolution used twice, with a norm behind only one of the uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(torch.relu(self.norm(self.conv(x))))
        return result


LEFT: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "before a padded convolution": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)),
        (2, 3, 5, 5),
        "(input -> Conv)",
    ),
    "behind an activation": (
        lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)),
        (2, 3, 5, 5),
        "(Relu -> output)",
    ),
    "behind a convolution that something else reads": (Shared, (2, 3, 5, 5), "(Conv -> Add)"),
    "over the steps of a sequence": (
        lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(5)),
        (2, 5, 4),
        "(MatMul -> output)",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_a_norm_that_cannot_be_folded_stays_and_is_named(case: str, tmp_path: Path) -> None:
    make, shape, where = LEFT[case]
    model, x = trained(make()), torch.randn(shape)
    proto = traced(model, x, tmp_path)
    before = proto.SerializeToString()
    assert fold_norms(proto) == 0
    assert proto.SerializeToString() == before
    (left,) = norms_left(proto)
    assert left.endswith(where)


def test_a_weight_that_two_layers_share_is_folded_for_one_of_them_only(tmp_path: Path) -> None:
    model, x = trained(Twice()), torch.randn(2, 3, 4, 4)
    proto = traced(model, x, tmp_path)
    assert fold_norms(proto) == 1
    onnx.checker.check_model(proto)
    with torch.no_grad():
        np.testing.assert_allclose(run(proto, x), model(x).numpy(), rtol=1e-4, atol=1e-5)


def test_a_norm_in_training_mode_is_left_alone() -> None:
    def tensor(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.ones(shape, np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y", "m2", "v2"], training_mode=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 2, 3, 3])],
        [value("y", TensorProto.FLOAT, [1, 2, 3, 3])],
        [tensor("w", 2, 2, 1, 1), *(tensor(name, 2) for name in "sbmv")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert fold_norms(proto) == 0
