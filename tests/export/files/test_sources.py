from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from compressor.errors import ExportError, FileError
from compressor.export.files.sources import float_bytes, read_source, tidy_like

SECRET = "/home/someone/net.py"


def test_weights_are_no_inputs_and_free_axes_have_names(classifier: Path, tmp_path: Path) -> None:
    proto = onnx.load(str(classifier))
    proto.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 3, 3, 3]))
    proto.graph.input[0].type.tensor_type.shape.dim[2].Clear()
    onnx.save(proto, str(tmp_path / "old.onnx"))
    source = read_source(tmp_path / "old.onnx")
    assert source.inputs == {"x": ("batch", 3, "x_axis2", 8)} and source.outputs == ("y",)
    # 8 * 3 * 9 + 8 + 16 * 8 * 9 + 16 + 5 * 16 + 5 numbers of four bytes
    assert float_bytes(source.proto) == 4 * 1477


def test_weights_in_a_second_file_are_refused(classifier: Path, tmp_path: Path) -> None:
    onnx.save(
        onnx.load(str(classifier)),
        str(tmp_path / "a.onnx"),
        save_as_external_data=True,
        size_threshold=0,
    )
    with pytest.raises(FileError, match="keeps weights in a second file"):
        read_source(tmp_path / "a.onnx")


def test_what_a_tool_left_behind_goes_and_the_metadata_of_the_source_stays(classifier: Path) -> None:
    source, proto = read_source(classifier), onnx.load(str(classifier))
    helper.set_model_props(proto, {"onnx.infer": "tool"})
    proto.graph.node[0].doc_string = SECRET
    proto.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    tidy_like(proto, source)
    assert SECRET.encode() not in proto.SerializeToString()
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"classes": "a,b,c"}
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]


def test_a_free_axis_that_a_tool_fixed_is_found(classifier: Path) -> None:
    source, proto = read_source(classifier), onnx.load(str(classifier))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ExportError, match="expected those of its source"):
        tidy_like(proto, source)


def test_free_axes_that_a_tool_named_otherwise_get_their_names_back(classifier: Path) -> None:
    source, proto = read_source(classifier), onnx.load(str(classifier))
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "made_up"
    tidy_like(proto, source)
    assert proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ExportError, match="expected those of its source"):
        tidy_like(proto, source)
