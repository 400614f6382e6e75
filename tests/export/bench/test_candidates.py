"""Files that a bench takes, and what it says of those that it does not take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.errors import InputError
from compressor.export.bench.candidates import Port, read_candidates

from .nets import write_net


def test_a_candidate_is_named_after_its_file_and_knows_its_inputs(tmp_path: Path) -> None:
    path = write_net(tmp_path / "small.int8.onnx")
    (found,) = read_candidates([str(path)])
    assert found.name == "small.int8"
    assert found.inputs == (Port("x", "float32", ("batch", 3, 8, 8)),)
    assert found.content == path.read_bytes()
    assert found.file_bytes == path.stat().st_size


def test_names_may_be_given(tmp_path: Path) -> None:
    a, b = write_net(tmp_path / "a/net.onnx"), write_net(tmp_path / "b/net.onnx")
    assert [c.name for c in read_candidates({"before": a, "after": b})] == ["before", "after"]
    with pytest.raises(InputError, match=r"a/net\.onnx and .*b/net\.onnx are both called 'net'.*dict"):
        read_candidates([a, b])


@pytest.mark.parametrize(
    ("models", "text"), [([], "give at least the baseline"), ("a.onnx", "got one, 'a.onnx'")]
)
def test_a_list_of_files_is_expected(models: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        read_candidates(models)  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.onnx': No such file"):
        read_candidates([tmp_path / "gone.onnx"])


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_file_that_is_no_whole_model_is_named(tmp_path: Path, keep: int) -> None:
    path = write_net(tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"net\.onnx is no model that onnxruntime loads"):
        read_candidates([path])


def test_weights_in_another_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where onnxruntime finds them, in the current folder: a phone has the one file only."""
    path = write_net(tmp_path / "net.onnx", channels=64)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"net\.onnx keeps 'conv\.weight' in another file"):
        read_candidates([path])


def test_inputs_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("SequenceAt", ["items", "position"], ["y"])],
        "net",
        [
            helper.make_tensor_sequence_value_info("items", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("position", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "net.onnx")
    with pytest.raises(InputError, match=r"takes 'items' of type seq\(tensor\(float\)\)"):
        read_candidates([tmp_path / "net.onnx"])


def test_an_unnamed_free_axis_gets_a_name(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx")
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    proto.graph.output[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    onnx.save(proto, path)
    assert read_candidates([path])[0].inputs[0].dims == ("axis0", 3, 8, 8)


def test_a_model_that_cannot_run_is_named(tmp_path: Path) -> None:
    (found,) = read_candidates([write_net(tmp_path / "net.onnx")])
    with pytest.raises(InputError, match=r"net\.onnx on \{'x': \[1, 4, 8, 8\]\}"):
        found.run({"x": np.zeros((1, 4, 8, 8), np.float32)})
