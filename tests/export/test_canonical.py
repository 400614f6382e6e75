"""Graphs that compute the same in the same way are the same bytes, whatever they were called."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.export.canonical import canonicalise

OPSET = [helper.make_opsetid("", 18)]


def value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def constant(name: str, *values: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def diamond(names: Mapping[str, str], order: list[int]) -> onnx.ModelProto:
    """Y = (x + a) * relu(x - b) as a graph whose values are called `names`; one node is not needed."""

    def called(name: str) -> str:
        return names.get(name, name)

    nodes = [
        helper.make_node("Add", ["x", called("a")], [called("left")], name=called("n0")),
        helper.make_node("Sub", ["x", called("b")], [called("right")], name=called("n1")),
        helper.make_node("Relu", [called("right")], [called("relu")], name=called("n2")),
        helper.make_node("Neg", ["x"], [called("unused")], name=called("n3")),
        helper.make_node("Mul", [called("left"), called("relu")], ["y"], name=called("n4")),
    ]
    weights = [constant(called("a"), 1, 2, 3), constant(called("b"), -1, 0, 1), constant(called("c"), 9)]
    graph = helper.make_graph(
        [nodes[i] for i in order], "g", [value("x", 3)], [value("y", 3)], [weights[i % 3] for i in order[:3]]
    )
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [1, 2, 0, 3, 4], [1, 0, 2, 3, 4]])
def test_order_and_names_of_values_do_not_matter(order: list[int]) -> None:
    plain = diamond({}, [0, 1, 2, 3, 4])
    other = diamond({"left": "val_7", "right": "zeros", "relu": "a1", "n4": "q", "b": "val_9"}, order)
    x = np.array([1, -2, 3], np.float32)
    expected = run(plain, x=x)
    for model in (plain, other):
        canonicalise(model, {"a"})
        onnx.checker.check_model(model)
    assert plain.SerializeToString() == other.SerializeToString()
    np.testing.assert_array_equal(run(plain, x=x)[0], expected[0])


def test_names_say_what_a_node_does_and_weights_keep_theirs() -> None:
    model = diamond({}, [0, 1, 2, 3, 4])
    canonicalise(model, {"a"})
    assert [node.name for node in model.graph.node] == ["Add_0", "Sub_1", "Relu_2", "Mul_3"]
    assert [list(node.output) for node in model.graph.node] == [["Add_0"], ["Sub_1"], ["Relu_2"], ["y"]]
    assert [tensor.name for tensor in model.graph.initializer] == ["a", "Sub_1_1"]


def test_names_that_are_taken_are_left_alone() -> None:
    nodes = [helper.make_node("Neg", ["Relu_1"], ["q"]), helper.make_node("Relu", ["q"], ["Neg_0"])]
    graph = helper.make_graph(nodes, "g", [value("Relu_1", 2)], [value("Neg_0", 2)])
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=8)
    x = np.array([1, -2], np.float32)
    expected = run(model, Relu_1=x)
    canonicalise(model, ())
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(run(model, Relu_1=x)[0], expected[0])


def test_branches_follow_what_they_read_of_the_outer_graph() -> None:
    def branch(kind: str, output: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(kind, ["inner_read"], [output])], kind, [], [value(output, 2)]
        )

    nodes = [
        helper.make_node("Exp", ["x"], ["inner_read"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["y"], then_branch=branch("Neg", "Exp_2"), else_branch=branch("Abs", "b")
        ),
    ]
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    graph = helper.make_graph(nodes, "g", [value("x", 2)], [value("y", 2)], [zero])
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=8)
    inputs = [np.array(values, np.float32) for values in ([1, 2], [-3, 1])]
    expected = [run(model, x=x)[0] for x in inputs]
    canonicalise(model, ())
    onnx.checker.check_model(model)
    assert "inner_read" not in model.SerializeToString().decode("latin-1")
    for x, wanted in zip(inputs, expected, strict=True):
        np.testing.assert_array_equal(run(model, x=x)[0], wanted)


def test_a_deep_graph_is_ordered_without_recursion() -> None:
    nodes = [helper.make_node("Neg", [f"v{i}"], [f"v{i + 1}"]) for i in range(3000)]
    random.shuffle(nodes)
    graph = helper.make_graph(nodes, "g", [value("v0", 1)], [value("v3000", 1)])
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=8)
    canonicalise(model, ())
    onnx.checker.check_model(model)
    assert len(model.graph.node) == 3000 and model.graph.node[0].input[0] == "v0"
