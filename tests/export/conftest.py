"""Small ONNX files of known weights, built without an exporter, and batches for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from compressor.export import Acceptance

Array = npt.NDArray[np.float32]
QUICK = Acceptance(seconds=0.01)


def write(
    path: Path,
    nodes: list[NodeProto],
    weights: Mapping[str, npt.NDArray[Any]],
    shape: tuple[int | str, ...],
    out: tuple[int | str, ...],
) -> Path:
    """A file x -> y of these nodes, with a line of metadata."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(out))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"classes": "a,b,c"})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def weights_of(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    return {w.name: numpy_helper.to_array(w) for w in onnx.load(str(path)).graph.initializer}


def normal(*shape: int, seed: int, scale: float = 1.0) -> Array:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


@pytest.fixture(scope="session")
def classifier(folder: Path) -> Path:
    """Two convolutions, the second's channels of very different size, and a dense layer: [batch, 5]."""
    weights = {
        "w1": normal(8, 3, 3, 3, seed=1, scale=0.3),
        "b1": normal(8, seed=2),
        "w2": normal(16, 8, 3, 3, seed=3) * np.logspace(-3, 0, 16, dtype=np.float32)[:, None, None, None],
        "b2": normal(16, seed=4),
        "w3": normal(5, 16, seed=5),
        "b3": normal(5, seed=6),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="dense", transB=1),
    ]
    return write(folder / "classifier.onnx", nodes, weights, ("batch", 3, 8, 8), ("batch", 5))


@pytest.fixture(scope="session")
def recurrent(folder: Path) -> Path:
    """An LSTM of 32, its weights behind an operator as torch exports them, and a dense layer: [batch, 4]."""
    weights: dict[str, npt.NDArray[Any]] = {
        "axis": np.array([0]),
        "w2d": normal(128, 6, seed=1, scale=0.3),
        "r": normal(1, 128, 32, seed=2, scale=0.2),
        "b": normal(1, 256, seed=3, scale=0.1),
        "w2": normal(4, 32, seed=4),
        "b2": normal(4, seed=5),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["w2d", "axis"], ["w"]),
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r", "b"], ["", "h"], name="lstm", hidden_size=32),
        helper.make_node("Squeeze", ["h", "axis"], ["s"]),
        helper.make_node("Gemm", ["s", "w2", "b2"], ["y"], name="dense", transB=1),
    ]
    return write(folder / "recurrent.onnx", nodes, weights, ("batch", 10, 6), ("batch", 4))


@pytest.fixture(scope="session")
def volume(folder: Path) -> Path:
    """One 3-D convolution: [batch, 4, 6, 6, 6]."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv3d", pads=[1] * 6)]
    weights = {"w": normal(4, 1, 3, 3, 3, seed=1)}
    return write(folder / "volume.onnx", nodes, weights, ("batch", 1, 6, 6, 6), ("batch", 4, 6, 6, 6))


@pytest.fixture
def images() -> list[tuple[Tensor, Tensor]]:
    """Four batches of (images [8, 3, 8, 8], labels [8])."""
    generator = torch.Generator().manual_seed(7)
    return [
        (torch.randn(8, 3, 8, 8, generator=generator), torch.randint(5, (8,), generator=generator))
        for _ in range(4)
    ]


@pytest.fixture
def left_alone(tmp_path: Path) -> Iterator[Path]:
    """An empty folder that has to be empty at the end, too."""
    yield tmp_path
    assert not [*tmp_path.rglob("*")]
