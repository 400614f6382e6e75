"""What onnxruntime refuses is said with what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper, save

from compressor.errors import ExportError
from compressor.runtimes.sessions import Session


def one_node(path: Path, operator: str, kind: int, opset: int = 18) -> Path:
    x, y = (helper.make_tensor_value_info(name, kind, [1, 1, 4, 4]) for name in "xy")
    w = helper.make_tensor("w", kind, [1, 1, 1, 1], [1.0])
    names = ["x", "w"] if operator == "Conv" else ["x"]
    graph = helper.make_graph([helper.make_node(operator, names, ["y"])], "g", [x], [y], [w])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


def test_a_damaged_file_is_not_taken_for_one_of_another_precision(tmp_path: Path) -> None:
    whole = one_node(tmp_path / "a.onnx", "Relu", TensorProto.FLOAT).read_bytes()
    for content in (b"nonsense", whole[: len(whole) // 2]):
        with pytest.raises(
            ExportError, match=r"cannot load a\.onnx: .*If the file is damaged, export it again"
        ):
            Session(content, what="a.onnx")


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_a_missing_kernel_is_met_with_float32(tmp_path: Path, kind: int) -> None:
    path = one_node(tmp_path / "a.onnx", "Conv", kind)
    with pytest.raises(ExportError, match=r"made for float32: for a float64 or half model"):
        Session(path, what="a.onnx")


def test_a_newer_operator_set_is_met_with_a_newer_runtime(tmp_path: Path) -> None:
    path = one_node(tmp_path / "a.onnx", "Relu", TensorProto.FLOAT, opset=99)
    with pytest.raises(ExportError, match=r"too old for a file of IR version 8, opset 99"):
        Session(path, what="a.onnx")
