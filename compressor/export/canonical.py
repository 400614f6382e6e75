"""One order and one set of names for a graph, so that the same model gives the same bytes."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from compressor.runtimes.onnx_graph import inner_graphs, reads_of

if TYPE_CHECKING:
    import onnx

__all__ = ["canonicalise"]


def canonicalise(model: onnx.ModelProto, weights: Collection[str]) -> None:
    """Order and name what is in a graph by the computation alone, in place; unused nodes and constants go.

    The exporter numbers values by what it happened to do before, and ties in a sorting are broken by
    addresses. Nodes come in the order in which the outputs need them, and nodes, values and constants are
    named after them (`Conv_3`); inputs, outputs and the constants named in `weights` keep their names.
    """
    graph = model.graph
    nodes = _needed(graph)
    fixed = {value.name for value in (*graph.input, *graph.output)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = {name: name for name in (*fixed, *constants) if name in fixed or name in weights}
    used: dict[str, None] = {}
    taken = {*names.values(), *_inner_names(graph)}
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
        for index, value in enumerate(reads_of(node)):
            if value in constants:
                used[value] = None
                names.setdefault(value, _free(f"{node.name}_{index}", taken))
        for index, value in enumerate(node.output):
            if value:
                names.setdefault(value, _free(f"{node.name}{f'_output{index}' if index else ''}", taken))
    used.update((value.name, None) for value in graph.output if value.name in constants)
    for node in nodes:
        _rename(node, names)
    ordered = [constants[name] for name in used]
    for tensor in ordered:
        tensor.name = names[tensor.name]
    _replace(graph.node, nodes)
    _replace(graph.initializer, ordered)
    _replace(model.opset_import, sorted(model.opset_import, key=lambda entry: entry.domain))


def _needed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that the outputs need, each behind those that it needs, in the order of their inputs."""
    writers = {value: node for node in graph.node for value in node.output if value}
    done: dict[int, onnx.NodeProto] = {}
    stack = [(value.name, False) for value in reversed(graph.output)]
    while stack:
        value, ready = stack.pop()
        node = writers.get(value)
        if node is None or id(node) in done:
            continue
        if ready:
            done[id(node)] = node
        else:
            stack.append((value, True))
            stack.extend((name, False) for name in reversed(list(reads_of(node))))
    return list(done.values())


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for graph in inner_graphs(node):
        for inner in graph.node:
            _rename(inner, names)
        for value in graph.output:
            value.name = names.get(value.name, value.name)


def _inner_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that are given in branches and loops: ONNX allows no outer value to have one of them."""
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from (value.name for value in (*inner.input, *inner.initializer))
            yield from (value for each in inner.node for value in each.output)
            yield from _inner_names(inner)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _replace(field: Any, items: list[Any]) -> None:
    copies = [copy.deepcopy(item) for item in items]
    del field[:]
    field.extend(copies)
