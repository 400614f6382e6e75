"""Files in onnxruntime's own format: the same numbers, and the list of what a build needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from compressor.errors import ExportError, FileError, InputError
from compressor.export import OrtStyle, int8, ort, ort_format
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


def test_a_file_that_computes_something_else_is_not_written(
    classifier: Path, recurrent: Path, images: Batches, left_alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter is made to convert another network of the same inputs: a weight 1 % off."""
    import onnx

    wrong = onnx.load(str(classifier))
    weight = onnx.numpy_helper.to_array(wrong.graph.initializer[-2])
    wrong.graph.initializer[-2].CopyFrom(onnx.numpy_helper.from_array(1.01 * weight, "w3"))
    convert = ort_format._convert

    def planted(file: object, copy: Path, style: OrtStyle) -> Path:
        path = classifier.with_name("wrong.onnx")
        onnx.save(wrong, str(path))
        return convert(replace(file, path=path), copy, style)  # type: ignore[type-var]

    monkeypatch.setattr(ort_format, "_convert", planted)
    with pytest.raises(ExportError, match=r"classifier.ort does not compute what .*expected 80 dB"):
        ort(classifier, images, left_alone / "out")
    (left_alone / "out").rmdir()


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
