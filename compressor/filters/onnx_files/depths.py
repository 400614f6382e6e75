"""How deep the nodes of an ONNX graph stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from compressor.runtimes.onnx_graph import reads_of

if TYPE_CHECKING:
    import onnx

__all__ = ["node_depths"]

_CONSTANT = (False, 0)


def node_depths(graph: onnx.GraphProto) -> Mapping[str, int]:
    """For each value that a node makes, the number of nodes on the longest path from an input to that node.

    Paths from constants count where no input leads to the node: a generator may start from a learnt constant.
    """
    stored = {tensor.name for tensor in graph.initializer}
    # A level says whether an input leads there, and over how many nodes: any such path beats all others.
    levels = {value.name: (True, 0) for value in graph.input if value.name not in stored}
    depths: dict[str, int] = {}
    for node in graph.node:
        reached, depth = max((levels.get(value, _CONSTANT) for value in reads_of(node)), default=_CONSTANT)
        for output in filter(None, node.output):
            levels[output] = (reached, depth + 1)
            depths[output] = depth
    return depths
