"""An ONNX graph without what its exporter left behind, and with axes named in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from compressor.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["correct_outputs", "dims_of", "inner_graphs", "name_axes", "opset_of", "reads_of", "strip"]

Dims = tuple[int | str, ...]

# Five axes may be those of a volume, or of a video whose time comes first or last: users name them.
_IMAGE_AXES = {3: ("length",), 4: ("height", "width")}
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


def strip(model: onnx.ModelProto) -> None:
    """Remove stack traces, comments and stale shapes from `model`, in place.

    The exporter notes for every node where it came from: absolute paths of the exporting machine,
    and for small networks more bytes than the weights. Its intermediate shapes go stale in later
    tools (a dynamic quantiser stops at them); runtimes infer them anew.
    """
    model.doc_string = ""
    del model.metadata_props[:]
    for graph in _graphs(model.graph):
        _strip_graph(graph)
    for function in model.functions:
        function.doc_string = ""
        del function.value_info[:], function.metadata_props[:]
        for node in function.node:
            _strip_node(node)


def dims_of(value: onnx.ValueInfoProto) -> Dims:
    """Sizes of an input or output; a free axis is given by its name."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_param or int(dim.dim_value) for dim in dims)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a file asks for."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the attributes of a node: branches, the body of a loop."""
    for attribute in node.attribute:
        yield from (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)


def reads_of(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node reads, those in its branches and loops included."""
    yield from filter(None, node.input)
    for graph in inner_graphs(node):
        for inner in graph.node:
            yield from reads_of(inner)
        yield from (value.name for value in graph.output)


def name_axes(graph: onnx.GraphProto, given: Mapping[str, Mapping[int, str]]) -> None:
    """Rename free axes (`s77`) in inputs and outputs to words (`batch`, `height`), in place.

    `given` are names by input and axis. Raises InputError where two of them are for axes that are equal.
    """
    names: dict[str, str] = {}
    for value in graph.input:
        dims = dims_of(value)
        for axis, word in given.get(value.name, {}).items():
            dim = dims[axis] if axis < len(dims) else 0
            if isinstance(dim, str) and names.setdefault(dim, word) != word:
                raise InputError(
                    f"dynamic names axis {axis} of {value.name!r} {word!r}, and another axis that the model "
                    f"takes to be as long {names[dim]!r}; give both one name"
                )
    for value in graph.input:
        dims = dims_of(value)
        for axis, dim in enumerate(dims):
            if isinstance(dim, str) and _SYMBOL.fullmatch(dim) and dim not in names:
                names[dim] = _unused(_word(axis, len(dims)), value.name, axis, names)
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = _SYMBOL.sub(lambda match: names.get(match[0], match[0]), dim.dim_param)


def correct_outputs(
    graph: onnx.GraphProto,
    sizes: Mapping[str, tuple[int, int]],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
) -> bool:
    """Whether a declared output size contradicted two runs; such sizes are put right, in place.

    torch's exporter declares a batch of 1 behind an LSTM whose batch is free. `sizes` gives for
    every free axis of the inputs its size in the two runs; an output that grew alike gets its name.
    """
    found = False
    for value, one, two in zip(graph.output, first, second, strict=True):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            pair = (one.shape[axis], two.shape[axis])
            if not dim.dim_param and set(pair) != {dim.dim_value}:
                alike = [name for name, ran in sizes.items() if ran == pair]
                dim.dim_param = alike[0] if alike else f"{value.name}_axis{axis}"
                found = True
    return found


def _word(axis: int, rank: int) -> str | None:
    if axis == 0:
        return "batch"
    words: tuple[str, ...] = _IMAGE_AXES.get(rank, ())
    return words[axis - 2] if 2 <= axis < 2 + len(words) else None


def _unused(word: str | None, value: str, axis: int, names: Mapping[str, str]) -> str:
    if word is not None and word not in names.values():
        return word
    return f"{value}_{word or f'axis{axis}'}"


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those in the attributes of its nodes."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from _graphs(inner)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.value_info[:], graph.metadata_props[:]
    for node in graph.node:
        _strip_node(node)
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


def _strip_node(node: onnx.NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for attribute in node.attribute:
        attribute.doc_string = ""
