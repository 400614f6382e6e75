from __future__ import annotations

import pytest
import torch
from onnx import GraphProto, ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto, helper

from compressor.errors import InputError
from compressor.runtimes.onnx_graph import correct_outputs, dims_of, name_axes, strip

SECRET = "/home/someone/private/model.py"


def info(name: str, *dims: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))


def branch(name: str) -> GraphProto:
    node = helper.make_node("Identity", ["x"], [name], doc_string=SECRET)
    node.metadata_props.append(StringStringEntryProto(key="trace", value=SECRET))
    graph = helper.make_graph([node], name, [], [info(name, 2)], doc_string=SECRET)
    graph.value_info.append(info("x", 2))
    return graph


def test_every_trace_is_removed_also_from_branches_and_functions() -> None:
    choice = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b"), doc_string=SECRET
    )
    inputs = [helper.make_tensor_value_info("c", TensorProto.BOOL, []), info("x", 2)]
    graph = helper.make_graph([choice], "g", inputs, [info("y", 2)], doc_string=SECRET)
    graph.value_info.append(info("a", 3))
    inner = helper.make_node("Neg", ["p"], ["q"], doc_string=SECRET)
    function = helper.make_function(
        "mine", "F", ["p"], ["q"], [inner], [helper.make_opsetid("", 18)], doc_string=SECRET
    )
    model: ModelProto = helper.make_model(graph, functions=[function], doc_string=SECRET)
    model.metadata_props.append(StringStringEntryProto(key="path", value=SECRET))
    model.graph.input[0].doc_string = SECRET
    assert SECRET.encode() in model.SerializeToString()
    strip(model)
    assert SECRET.encode() not in model.SerializeToString()
    assert not model.graph.value_info
    assert [node.op_type for node in model.graph.node] == ["If"]


def test_free_axes_are_named_in_words_everywhere() -> None:
    graph = helper.make_graph(
        [],
        "g",
        [info("x", "s1", 3, "s2", "2*s3"), info("t", "s1", "s9"), info("u", "s7", 4)],
        [info("y", "s1", "3*s2 + s9", "s70")],
    )
    name_axes(graph, {})
    assert dims_of(graph.input[0]) == ("batch", 3, "height", "2*s3")
    assert dims_of(graph.input[1]) == ("batch", "t_axis1")
    assert dims_of(graph.input[2]) == ("u_batch", 4)
    assert dims_of(graph.output[0]) == ("batch", "3*height + t_axis1", "s70")


def test_only_output_sizes_that_two_runs_contradict_are_changed() -> None:
    graph = helper.make_graph([], "g", [], [info("y", 1, 4, 7), info("z", "batch", 2)])
    first = [torch.zeros(1, 4, 7), torch.zeros(1, 2)]
    second = [torch.zeros(2, 4, 9), torch.zeros(2, 2)]
    assert correct_outputs(graph, {"batch": (1, 2)}, first, second)
    assert dims_of(graph.output[0]) == ("batch", 4, "y_axis2")
    assert dims_of(graph.output[1]) == ("batch", 2)
    assert not correct_outputs(graph, {"batch": (1, 2)}, first, second)


def test_axes_have_the_names_they_are_given() -> None:
    graph = helper.make_graph(
        [], "g", [info("x", "s1", 1, "s2", "s3", "s4")], [info("y", "s1", 1, "s2", "s3", "s4")]
    )
    name_axes(graph, {"x": {4: "time"}})
    assert dims_of(graph.output[0]) == ("batch", 1, "x_axis2", "x_axis3", "time")


def test_two_names_for_one_axis_are_refused() -> None:
    graph = helper.make_graph([], "g", [info("x", "s1", 4), info("u", "s1", 4)], [])
    with pytest.raises(InputError, match=r"axis 0 of 'u' 'people', .* 'batch'; give both one name"):
        name_axes(graph, {"x": {0: "batch"}, "u": {0: "people"}})
