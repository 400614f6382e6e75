"""What a file says about its model, as any reader of ONNX files finds it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
import torch
from torch import nn

import compressor as cp
from compressor.errors import FileError, InputError
from compressor.export import Exporter, Metadata, onnx, read_metadata
from compressor.export.metadata import METADATA_KEY, write_metadata
from tests.conftest import ROOT

CLASSES = ("cat", "dog", "größer")


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def exported(model: nn.Module, path: Path, metadata: Metadata | None = None) -> cp.export.OnnxReport:
    return onnx(model, torch.rand(1, 3, 8, 8), path, metadata=metadata, exporter=Exporter.TORCHSCRIPT)


def test_an_app_finds_the_facts_under_one_key(tmp_path: Path) -> None:
    model, x = net(), torch.rand(1, 3, 8, 8)
    graph = cp.capture(model, x)
    removed = np.zeros(graph.n_units, dtype=bool)
    removed[:3] = True
    small = cp.apply(model, graph.plan(removed))
    path = tmp_path / "net.onnx"
    report = exported(small, path, Metadata(classes=CLASSES, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)))

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = json.loads(session.get_modelmeta().custom_metadata_map["compressor.model"])
    plan = cp.plan_of(small)
    assert plan is not None
    assert found == {
        "format": 1,
        "classes": list(CLASSES),
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.1],
        "plan_digest": json.loads(plan.to_json())["digest"],
        "inputs": {"input": ["batch", 3, 8, 8]},
        "outputs": {"output": ["batch", 3]},
        "library": cp.__version__,
    }
    assert read_metadata(path) == report.metadata
    assert report.metadata.classes == CLASSES and report.metadata.inputs == {"input": ("batch", 3, 8, 8)}
    text = path.read_bytes()
    assert str(tmp_path).encode() not in text and not re.search(rb"20[2-9]\d-\d\d", text)


def test_a_model_without_a_plan_says_none(tmp_path: Path) -> None:
    assert exported(net(), tmp_path / "net.onnx").metadata.plan_digest is None
    assert read_metadata(tmp_path / "net.onnx").plan_digest is None
    noted = Metadata(plan_digest="abc")
    assert exported(net(), tmp_path / "net.onnx", noted).metadata.plan_digest == "abc"


def test_what_another_tool_makes_of_a_file_takes_over_its_metadata(tmp_path: Path) -> None:
    exported(net(), tmp_path / "net.onnx", Metadata(classes=CLASSES))
    proto = onnx_format.load(str(tmp_path / "net.onnx"))
    del proto.metadata_props[:]
    proto.metadata_props.add(key="other", value="kept")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    for _ in range(2):
        write_metadata(proto, read_metadata(tmp_path / "net.onnx"))
    assert [entry.key for entry in proto.metadata_props] == ["other", METADATA_KEY]
    onnx_format.save(proto, str(tmp_path / "fixed.onnx"))
    again = read_metadata(tmp_path / "fixed.onnx")
    assert again.classes == CLASSES and again.inputs == {"input": (1, 3, 8, 8)}


def test_the_files_made_of_a_file_keep_its_metadata(tmp_path: Path) -> None:
    exported(net(), tmp_path / "net.onnx", Metadata(classes=CLASSES))
    cp.export.fix_shapes(tmp_path / "net.onnx", {"input": (1, 3, 8, 8)}, tmp_path / "fixed.onnx")
    fixed = read_metadata(tmp_path / "fixed.onnx")
    assert fixed.classes == CLASSES
    assert fixed.inputs == {"input": (1, 3, 8, 8)} and fixed.outputs == {"output": (1, 3)}
    cp.export.ort(tmp_path / "net.onnx", [torch.rand(1, 3, 8, 8)], tmp_path)
    assert read_metadata(tmp_path / "net.ort") == read_metadata(tmp_path / "net.onnx")
    (tmp_path / "damaged.ort").write_bytes(b"no such file")
    with pytest.raises(FileError, match="cannot read"):
        read_metadata(tmp_path / "damaged.ort")


def test_the_guide_for_apps_reads_keys_that_are_written(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "android-ios.md").read_text(encoding="utf-8")
    assert f'getValue("{METADATA_KEY}")' in guide
    read = set(re.findall(r'getJSONArray\("(\w+)"\)', guide))
    path = tmp_path / "net.onnx"
    exported(net(), path, Metadata(classes=CLASSES, mean=(0.5,) * 3, std=(0.2,) * 3))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    written = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    assert read == {"mean", "std", "classes"} <= set(written)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (Metadata(classes=("a", "b")), r"2 classes, and 'output' has the shape \[batch, 3\]"),
        (Metadata(mean=(0.5,), std=(0.5,)), r"1 mean and std, and 'input' has the shape .* 3 channels"),
    ],
)
def test_facts_that_do_not_fit_the_model_are_refused_and_no_file_is_left(
    metadata: Metadata, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        exported(net(), tmp_path / "net.onnx", metadata)
    assert list(tmp_path.iterdir()) == []


def test_facts_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="a sequence of names"):
        Metadata(classes="cat")
    with pytest.raises(InputError, match="appears twice"):
        Metadata(classes=("cat", "cat"))
    with pytest.raises(InputError, match="both mean and std"):
        Metadata(mean=(0.5,))
    with pytest.raises(InputError, match="2 means and 1 standard"):
        Metadata(mean=(0.5, 0.5), std=(0.5,))
    with pytest.raises(InputError, match="above 0"):
        Metadata(mean=(0.5,), std=(0.0,))
    with pytest.raises(InputError, match="finite numbers"):
        Metadata(mean=(float("nan"),), std=(1.0,))
    with pytest.raises(InputError, match="numbers are expected"):
        Metadata(mean=("x",), std=(1.0,))  # type: ignore[arg-type]


def test_files_without_metadata_or_with_a_damaged_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    exported(net(), path)
    proto = onnx_format.load(str(path))
    for text, message in (
        ("{", "is damaged"),
        ('{"format": 2}', "another format version"),
        ('{"format": 1}', "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 1, "inputs": {}, "outputs": {}, "colour": 1}', "is damaged"),
    ):
        proto.metadata_props[0].value = text
        onnx_format.save(proto, str(path))
        with pytest.raises(FileError, match=message):
            read_metadata(path)
    del proto.metadata_props[:]
    onnx_format.save(proto, str(path))
    with pytest.raises(FileError, match=r"no metadata under 'compressor\.model'"):
        read_metadata(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileError, match="cannot read"):
        read_metadata(path)
    with pytest.raises(FileError, match="cannot read"):
        read_metadata(tmp_path / "absent.onnx")
