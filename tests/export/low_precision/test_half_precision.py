from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from compressor.errors import ExportError
from compressor.export import fp16
from tests.export.conftest import QUICK, normal, weights_of, write


def test_weights_are_halves_of_the_nearest_value_and_inputs_stay_float(
    classifier: Path, images: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    report = fp16(classifier, images, tmp_path / "half.onnx", checks=QUICK)
    before, after = weights_of(classifier), weights_of(report.path)
    for name in ("w1", "w2", "w3"):
        np.testing.assert_array_equal(after[name], before[name].astype(np.float16))
    model = onnx.load(str(report.path))
    assert [entry.key for entry in model.metadata_props] == ["classes"]
    x = images[0][0]
    feeds = {"x": x.numpy()}
    (expected,) = onnxruntime.InferenceSession(str(classifier)).run(None, feeds)
    (found,) = onnxruntime.InferenceSession(str(report.path)).run(None, feeds)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)
    assert report.fidelity.sqnr_db["y"] > 50 and report.judged_on == "32 given examples"
    assert report.float_bytes == 0 and report.kind == "fp16"
    assert fp16(classifier, images, tmp_path / "b.onnx", checks=QUICK).path.read_bytes() == (
        report.path.read_bytes()
    )


def test_volumes_and_lstms_are_halved_too(volume: Path, recurrent: Path, tmp_path: Path) -> None:
    for source, x in ((volume, torch.randn(2, 1, 6, 6, 6)), (recurrent, torch.randn(2, 10, 6))):
        assert fp16(source, [x], tmp_path / source.name, checks=QUICK).float_bytes == 0


def test_values_beyond_the_range_of_halves_fail_the_export(left_alone: Path, folder: Path) -> None:
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    weight = {"w": normal(2, 3, 1, 1, seed=1, scale=1e6)}
    source = write(folder / "huge.onnx", [node], weight, ("batch", 3, 4, 4), ("batch", 2, 4, 4))
    with pytest.raises(ExportError, match=r"made fp16, .*huge.onnx does not compute the same any more"):
        fp16(source, [torch.randn(2, 3, 4, 4)], left_alone / "a.onnx", checks=QUICK)
