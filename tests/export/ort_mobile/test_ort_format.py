"""Files in onnxruntime's own format: the same numbers, and the list of what a build needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from compressor.errors import ExportError, FileError, InputError
from compressor.export import OrtStyle, int8, ort
from compressor.export.files.sources import Source
from compressor.export.ort_mobile import ort_format
from tests.export.conftest import QUICK

Batches = list[tuple[Tensor, Tensor]]


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_file_for_the_cpu_and_its_operators(classifier: Path, images: Batches, tmp_path: Path) -> None:
    report = ort(classifier, images, tmp_path / "out")
    (file,) = report.files
    assert file.style is OrtStyle.FIXED and file.path == tmp_path / "out" / "classifier.ort"
    assert file.path.read_bytes()[4:8] == b"ORTM" and file.file_bytes == file.path.stat().st_size
    for batch in (1, 3):
        x = torch.randn(batch, 3, 8, 8).numpy()
        np.testing.assert_allclose(run(file.path, x), run(classifier, x), rtol=1e-4, atol=1e-5)
    needed = file.required_operators.read_text()
    assert needed.splitlines()[0] == "# Generated from classifier.ort" and str(tmp_path) not in needed
    assert '"float"' in needed and "Gemm" in needed and "FusedConv" in needed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "classifier.ort",
        "classifier.required_operators_and_types.config",
    }
    assert str(tmp_path).encode() not in file.path.read_bytes()
    assert file.fidelity.examples == 32 and "style Fixed, on 32 examples" in str(report)


def test_fixed_shapes_give_a_file_for_the_compilers_where_they_would_take_it(
    classifier: Path, volume: Path, images: Batches, tmp_path: Path
) -> None:
    report = ort(classifier, images, tmp_path, shapes={"x": (2, 3, 8, 8)})
    first, second = report.files
    assert second.style is OrtStyle.RUNTIME and second.path.name == "classifier.fixed.with_runtime_opt.ort"
    assert second.required_operators.is_file() and (tmp_path / "classifier.fixed.onnx").is_file()
    x = images[0][0][:2].numpy()
    np.testing.assert_allclose(run(second.path, x), run(classifier, x), rtol=1e-4, atol=1e-5)
    assert report.usability.worth_a_try and "NNAPI: yes" in str(report)
    assert first.path.is_file()

    refused = ort(volume, [torch.randn(2, 1, 6, 6, 6)], tmp_path / "v", shapes={"x": (1, 1, 6, 6, 6)})
    assert [file.style for file in refused.files] == [OrtStyle.FIXED]
    assert not refused.usability.worth_a_try


@pytest.mark.filterwarnings("ignore::compressor.errors.QuantisationWarning")
def test_quantised_files_are_converted_too(classifier: Path, images: Batches, tmp_path: Path) -> None:
    small = int8(classifier, images, tmp_path / "small.int8.onnx", checks=QUICK)
    (file,) = ort(small.path, images, tmp_path).files
    assert "QLinearConv" in file.required_operators.read_text()
    assert file.path.name == "small.int8.ort" and file.fidelity.sqnr_db["y"] > 25


def labels(path: Path, scale: float) -> Path:
    """The largest of four channels of x, the second times `scale`: a whole number for each example."""
    nodes = [
        onnx.helper.make_node("Mul", ["x", "w"], ["s"]),
        onnx.helper.make_node("ArgMax", ["s"], ["y"], axis=1, keepdims=0),
    ]
    weights = {"w": np.array([[1, scale, 1, 1]], dtype=np.float32)}
    graph = onnx.helper.make_graph(
        nodes,
        "labels",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, ["batch"])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_a_file_that_computes_something_else_is_not_written(
    classifier: Path, images: Batches, folder: Path, left_alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter is given another file with the same inputs: a weight 1 % off, another largest channel."""
    model, other = onnx.load(str(classifier)), folder / "other.onnx"
    weight = next(w for w in model.graph.initializer if w.name == "w3")
    weight.CopyFrom(onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(weight), "w3"))
    onnx.save(model, str(other))
    convert = ort_format._convert

    def planted(wrong: Path) -> Callable[[Source, Path, OrtStyle], Path]:
        return lambda file, copy, style: convert(replace(file, path=wrong), copy, style)

    monkeypatch.setattr(ort_format, "_convert", planted(other))
    with pytest.raises(ExportError, match=r"classifier.ort does not compute what .*expected 80 dB"):
        ort(classifier, images, left_alone / "out")
    source = labels(folder / "labels.onnx", 1)
    monkeypatch.setattr(ort_format, "_convert", planted(labels(folder / "wrong.onnx", 2)))
    with pytest.raises(ExportError, match=r"labels.ort does not compute what .*y top-1 agreement"):
        ort(source, [torch.rand(64, 4)], left_alone / "out")
    (left_alone / "out").rmdir()


def test_whole_numbers_are_converted(folder: Path, tmp_path: Path) -> None:
    (file,) = ort(labels(folder / "labels.onnx", 1), [torch.rand(64, 4)], tmp_path).files
    assert file.fidelity.sqnr_db == {} and file.fidelity.agreement == {"y": 1.0}


def test_bad_input_is_refused(classifier: Path, images: Batches, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is no file"):
        ort(tmp_path / "none.onnx", images, tmp_path)
    with pytest.raises(InputError, match=r"examples: batch 0 gives the input 'x' \[1, 3\]"):
        ort(classifier, [torch.zeros(1, 3)], tmp_path)
    with pytest.raises(InputError, match="shapes gives the input 'x'"):
        ort(classifier, images, tmp_path, shapes={"x": (1, 3, 9, 9)})
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write into"):
        ort(classifier, images, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
