"""How large the constants and functions of an ONNX file come to be, told before they are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from compressor.runtimes.onnx_graph import inner_graphs

if TYPE_CHECKING:
    import onnx

__all__ = ["inlined_nodes", "too_large"]

_FREELY = 1 << 26
"""Values that nodes may make of constants however small the file: 256 MiB of float32."""

_TIMES = 100

_UNBOUNDED = {
    *("ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"),
    *("CenterCropPad", "ScatterElements", "SplitToSequence", "HannWindow", "HammingWindow", "BlackmanWindow"),
}
"""Operators whose results have the size that a number in the file says."""


def too_large(part: onnx.ModelProto) -> str | None:
    """Why the nodes of a graph without inputs are not to be run, by the shapes of their results; or None.

    A few bytes say `Expand` to 10^12 values; `Concat` of a value with itself, thirty times, makes 2^30.
    """
    from onnx import shape_inference

    stored = sum(math.prod(tensor.dims) for tensor in part.graph.initializer)
    limit = max(_FREELY, _TIMES * stored)
    inferred = shape_inference.infer_shapes(part, data_prop=True).graph
    sizes = {value.name: _count(value) for value in (*inferred.value_info, *inferred.output)}
    for node in part.graph.node:
        for output in node.output:
            count = sizes.get(output)
            if count is None and node.op_type in _UNBOUNDED:
                return f"how large {node.op_type} makes {output!r} cannot be told before it is computed"
            if count is not None and count > limit:
                return f"{node.op_type} makes {count:,} values of constants, at most {limit:,} are read"
    return None


def _count(value: onnx.ValueInfoProto) -> int | None:
    """The number of values by the shape, None where it is not known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or any(not dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return math.prod(int(dim.dim_value) for dim in kind.shape.dim)


def inlined_nodes(proto: onnx.ModelProto) -> int:
    """How many nodes the graph has once its functions stand in it; ValueError where one calls itself.

    Nine functions that call one another ten times make 10^9.
    """
    functions = {(one.domain, one.name, one.overload): one for one in proto.functions}
    known: dict[tuple[str, str, str], int] = {}
    under_way: set[tuple[str, str, str]] = set()

    def count(nodes: Iterator[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            total += of_function(key) if key in functions else 1
            total += sum(count(iter(graph.node)) for graph in inner_graphs(node))
        return total

    def of_function(key: tuple[str, str, str]) -> int:
        if key in under_way:
            raise ValueError(f"its function {key[1]!r} calls itself")
        if key not in known:
            under_way.add(key)
            known[key] = count(iter(functions[key].node))
            under_way.remove(key)
        return known[key]

    return count(iter(proto.graph.node))
