from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.export import compare_files, fp16, int8
from tests.export.conftest import QUICK

pytestmark = pytest.mark.filterwarnings("ignore::compressor.errors.QuantisationWarning")


def test_a_row_for_each_file_against_the_first(
    classifier: Path, images: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    small = int8(classifier, images, tmp_path / "small.int8.onnx", checks=QUICK)
    half = fp16(classifier, images, tmp_path / "small.fp16.onnx", checks=QUICK)
    found = compare_files([classifier, small.path, half.path], images, seconds=0.01)
    base, first, second = found.rows
    assert base.fidelity.sqnr_db == {"y": float("inf")} and base.fidelity.agreement == {"y": 1.0}
    assert first.fidelity == small.on_this_cpu and second.fidelity == half.on_this_cpu
    assert [row.file_bytes for row in found.rows] == [
        classifier.stat().st_size,
        small.file_bytes,
        half.file_bytes,
    ]
    assert len(found.latency.timings) == 3
    for row in found.rows:
        session = onnxruntime.InferenceSession(str(row.path))
        right = [session.run(None, {"x": x.numpy()})[0].argmax(1) == y.numpy() for x, y in images]
        assert row.accuracy == np.concatenate(right).mean()
    head, *lines = str(found).splitlines()
    assert head.split()[:3] == ["file", "bytes", "size"] and "accuracy" in head
    assert [line.split()[0] for line in lines[:3]] == [
        "classifier.onnx",
        "small.int8.onnx",
        "small.fp16.onnx",
    ]
    assert f"{100 * small.size_fraction:.0f} %" in lines[1]
    assert "on 32 examples" in lines[3]


def test_without_labels_there_is_no_accuracy(classifier: Path) -> None:
    x = torch.randn(4, 3, 8, 8)
    for batch in (x, (x, torch.rand(4)), (x, torch.zeros(3, dtype=torch.int64))):
        found = compare_files([classifier], [batch], seconds=0.01)
        assert found.rows[0].accuracy is None and "accuracy" not in str(found)


def test_files_of_other_networks_and_no_files_are_refused(
    classifier: Path, folder: Path, images: list[tuple[Tensor, Tensor]]
) -> None:
    other = folder / "other.onnx"
    import onnx

    proto = onnx.load(str(classifier))
    proto.graph.output[0].name = "z"
    proto.graph.node[-1].output[0] = "z"
    onnx.save(proto, str(other))
    with pytest.raises(InputError, match=r"other.onnx has the inputs and outputs x -> z"):
        compare_files([classifier, other], images)
    for files in ([], str(classifier)):
        with pytest.raises(InputError, match="needs a list of one or more ONNX files"):
            compare_files(files, images)
