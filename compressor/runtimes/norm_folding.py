"""Batch norms of an ONNX graph, folded into the convolution or matrix beside them where that is exact."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compressor.runtimes.onnx_graph import reads_of

if TYPE_CHECKING:
    import onnx

__all__ = ["fold_norms", "norms_left"]

_Array = npt.NDArray[Any]
_WRITERS = ("Conv", "ConvTranspose", "Gemm")  # a norm behind them scales their filters
_READERS = ("Conv", "Gemm")  # a norm before them scales their inputs


def fold_norms(model: onnx.ModelProto) -> int:
    """Fold every batch norm that can be folded exactly, in place; how many went.

    Behind a convolution, transposed convolution or matrix that nothing else reads, the norm goes into its
    weights and bias; before a matrix, or a convolution without padding (padded zeros are not shifted by
    a norm before them), likewise. Weights are computed in float64.
    """
    count = 0
    while any(_fold(graph, norm) for graph in (_Graph(model),) for norm in graph.norms):
        count += 1
    if count:
        _drop_unused(model.graph)
    return count


def norms_left(model: onnx.ModelProto) -> tuple[str, ...]:
    """The batch norms of the graph by name, each with what is before and behind it."""
    graph = _Graph(model)
    return tuple(
        f"{norm.name or norm.output[0]} ({graph.kind_of_writer(norm.input[0])} -> "
        f"{', '.join(reader.op_type for reader in graph.readers(norm.output[0])) or 'output'})"
        for norm in graph.norms
    )


class _Graph:
    """Who writes and who reads each value, and the constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.writer = {output: node for node in self.graph.node for output in node.output}
        self.uses = Counter(name for node in self.graph.node for name in reads_of(node))
        self.uses.update(value.name for value in self.graph.output)
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t

    def array(self, name: str) -> _Array:
        """The values of a constant."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[name])

    @property
    def norms(self) -> list[onnx.NodeProto]:
        """Batch norms as they are in eval mode."""
        return [node for node in self.graph.node if node.op_type == "BatchNormalization"]

    def readers(self, value: str) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if value in node.input]

    def kind_of_writer(self, value: str) -> str:
        return self.writer[value].op_type if value in self.writer else "input"

    def constant(self, node: onnx.NodeProto, first: int) -> bool:
        """Whether the inputs of a node from the `first` on are all constants."""
        return all(name in self.constants for name in node.input[first:] if name)

    def rank(self, value: str) -> int | None:
        from onnx import shape_inference

        inferred = shape_inference.infer_shapes(self.model).graph
        for info in (*inferred.value_info, *inferred.input, *inferred.output):
            if info.name == value and info.type.tensor_type.HasField("shape"):
                return len(info.type.tensor_type.shape.dim)
        return None

    def put(self, node: onnx.NodeProto, index: int, values: _Array, like: str) -> None:
        """Make `values` the constant input `index` of a node; what others read stays as it is."""
        from onnx import numpy_helper

        name = node.input[index] if index < len(node.input) else ""
        if not name or self.uses[name] > 1 or name not in {t.name for t in self.graph.initializer}:
            name = _unused(f"{node.output[0]}_{'weight' if index == 1 else 'bias'}", self)
        tensor = numpy_helper.from_array(np.ascontiguousarray(values).astype(self.array(like).dtype), name)
        if name in self.constants:
            self.constants[name].CopyFrom(tensor)
        else:
            self.graph.initializer.append(tensor)
        node.input[:] = [*node.input, *[""] * (index + 1 - len(node.input))]
        node.input[index] = name


def _fold(graph: _Graph, norm: onnx.NodeProto) -> bool:
    if not graph.constant(norm, 1) or _attribute(norm, "training_mode", 0) or len(norm.output) > 1:
        return False
    scale, shift, mean, variance = (graph.array(name).astype(np.float64) for name in norm.input[1:5])
    scale = scale / np.sqrt(variance + _attribute(norm, "epsilon", 1e-5))
    shift = shift - mean * scale
    return _into_writer(graph, norm, scale, shift) or _into_reader(graph, norm, scale, shift)


def _into_writer(graph: _Graph, norm: onnx.NodeProto, scale: _Array, shift: _Array) -> bool:
    """Fold scale (W x + b) + shift, where nothing else reads W x + b."""
    writer = graph.writer.get(norm.input[0])
    if writer is None or graph.uses[norm.input[0]] > 1 or not _usable(graph, writer, _WRITERS):
        return False
    weight, bias = _parameters(graph, writer, len(scale))
    if bias is None:
        return False
    if writer.op_type == "ConvTranspose":
        groups = _attribute(writer, "group", 1)
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        weight = (grouped * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    else:
        axis = 1 if writer.op_type == "Gemm" and not _attribute(writer, "transB", 0) else 0
        weight = weight * np.expand_dims(scale, [i for i in range(weight.ndim) if i != axis])
    like = writer.input[1]
    graph.put(writer, 2, bias * scale + shift, like)
    graph.put(writer, 1, weight, like)
    (output,) = norm.output
    graph.graph.node.remove(norm)
    writer.output[0] = output
    return True


def _into_reader(graph: _Graph, norm: onnx.NodeProto, scale: _Array, shift: _Array) -> bool:
    """Fold W (scale x + shift) + b, where nothing else reads scale x + shift."""
    readers = graph.readers(norm.output[0])
    if len(readers) != 1 or graph.uses[norm.output[0]] > 1 or not _usable(graph, readers[0], _READERS):
        return False
    (reader,) = readers
    if list(reader.input).index(norm.output[0]) != 0 or _pads(reader):
        return False
    weight = graph.array(reader.input[1]).astype(np.float64)
    if reader.op_type == "Gemm":
        by_row = not _attribute(reader, "transB", 0)
        matrix = weight.T if by_row else weight
        weight, added = weight * (scale[:, None] if by_row else scale), matrix @ shift
    else:
        groups = _attribute(reader, "group", 1)
        per_group = weight.reshape(groups, -1, *weight.shape[1:])
        inputs = (groups, 1, -1, *[1] * (weight.ndim - 2))
        added = (per_group * shift.reshape(inputs)).reshape(len(weight), -1).sum(1)
        weight = (per_group * scale.reshape(inputs)).reshape(weight.shape)
    _, bias = _parameters(graph, reader, len(added))
    if bias is None:
        return False
    like = reader.input[1]
    graph.put(reader, 2, bias + added, like)
    graph.put(reader, 1, weight, like)
    reader.input[0] = norm.input[0]
    graph.graph.node.remove(norm)
    return True


def _usable(graph: _Graph, node: onnx.NodeProto, kinds: tuple[str, ...]) -> bool:
    """Whether a node multiplies by a constant; a product of a matrix with one is made a Gemm."""
    if node.op_type == "MatMul" and "Gemm" in kinds and node.input[1] in graph.constants:
        if graph.array(node.input[1]).ndim != 2 or graph.rank(node.input[0]) != 2:
            return False
        node.op_type = "Gemm"
    if node.op_type == "Gemm" and (
        _attribute(node, "transA", 0)
        or {_attribute(node, "alpha", 1.0), _attribute(node, "beta", 1.0)} != {1.0}
    ):
        return False
    return node.op_type in kinds and node.domain in ("", "ai.onnx") and graph.constant(node, 1)


def _parameters(graph: _Graph, node: onnx.NodeProto, channels: int) -> tuple[_Array, _Array | None]:
    """Weight and bias in float64, zeros for no bias; None for a bias that is not one number a channel."""
    weight = graph.array(node.input[1]).astype(np.float64)
    if len(node.input) < 3 or not node.input[2]:
        return weight, np.zeros(channels)
    bias = graph.array(node.input[2]).astype(np.float64)
    return weight, np.broadcast_to(bias, channels) if bias.ndim <= 1 else None


def _pads(node: onnx.NodeProto) -> bool:
    automatic = _attribute(node, "auto_pad", b"NOTSET")
    return any(_attribute(node, "pads", ())) or automatic not in (b"NOTSET", b"VALID")


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _unused(name: str, graph: _Graph) -> str:
    while name in graph.constants or name in graph.writer:
        name += "_"
    return name


def _drop_unused(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in reads_of(node)} | {value.name for value in graph.output}
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)
    for node in [n for n in graph.node if n.op_type == "Constant" and n.output[0] not in read]:
        graph.node.remove(node)
