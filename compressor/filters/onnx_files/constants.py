"""The values of an ONNX graph that no input of the model changes, as tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from compressor.filters.onnx_files.growth import too_large
from compressor.runtimes.onnx_graph import inner_graphs, opset_of

if TYPE_CHECKING:
    import onnx

__all__ = ["Constants", "NotConstantError"]

_RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}


_EVALUATED = 19
"""The version of ONNX's operators that constants are computed with at least."""


_WIDEST = 16
"""Bytes of the widest kind of value, complex128."""


class NotConstantError(Exception):
    """A value of the graph cannot be known from the file alone; the message says why."""


@dataclass(frozen=True)
class Constants:
    """The constants of one model: initializers, and what nodes compute from them alone.

    `folder` is where files of external data are looked for.
    """

    model: onnx.ModelProto
    folder: Path
    _read: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def value(self, name: str) -> Tensor:
        """The value of that name, in its own dtype; raises NotConstantError where the file has none."""
        if name not in self._read:
            self._read[name] = self._tensor(name)
        return self._read[name]

    @cached_property
    def _initializers(self) -> Mapping[str, onnx.TensorProto]:
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @cached_property
    def _makers(self) -> Mapping[str, onnx.NodeProto]:
        return {output: node for node in self.model.graph.node for output in node.output if output}

    @cached_property
    def _inputs(self) -> frozenset[str]:
        return frozenset(value.name for value in self.model.graph.input)

    def _tensor(self, name: str) -> Tensor:
        if name in self._initializers:
            return _torch(name, self._array(self._initializers[name]))
        needed = self._ancestors(name)
        maker = self._makers[name]
        if maker.op_type == "Constant" and maker.attribute[0].name == "value":
            return _torch(name, self._array(maker.attribute[0].t))
        return _torch(name, self._evaluated(name, needed))

    def _array(self, tensor: onnx.TensorProto) -> Any:
        from onnx import numpy_helper

        try:
            _require_small(tensor, self.folder)
            return numpy_helper.to_array(tensor, base_dir=str(self.folder))
        except Exception as error:  # what numpy, the file system or onnx's checks of paths raise
            raise NotConstantError(
                f"the values of {tensor.name!r} cannot be read ({type(error).__name__}: {error}); the "
                "file, or its file of external data, may be truncated or missing"
            ) from error

    def _ancestors(self, name: str) -> set[str]:
        """The values that are computed on the way to `name`; raises where one of them is not constant."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            value = waiting.pop()
            if not value or value in found or value in self._initializers:
                continue
            if value in self._inputs:
                raise NotConstantError(f"it is computed from the model's input {value!r}")
            if value not in self._makers:
                raise NotConstantError(f"nothing in the file makes the value {value!r}")
            node = self._makers[value]
            if node.op_type in _RANDOM:
                raise NotConstantError(f"it is drawn at random by {node.op_type}")
            if any(True for _ in inner_graphs(node)):
                raise NotConstantError(f"it is computed by {node.op_type}, in a graph of its own")
            found.add(value)
            waiting.extend(node.input)
        return found

    def _evaluated(self, name: str, needed: set[str]) -> Any:
        from onnx import helper, numpy_helper, version_converter
        from onnx.reference import ReferenceEvaluator

        nodes = [node for node in self.model.graph.node if needed & set(node.output)]
        read = {value for node in nodes for value in node.input if value in self._initializers}
        stored = [
            numpy_helper.from_array(self._array(self._initializers[value]), value) for value in sorted(read)
        ]
        graph = helper.make_graph(nodes, "constant", [], [onnx_value(name)], initializer=stored)
        domains = {"", "ai.onnx", *(node.domain for node in nodes)}
        opsets = [entry for entry in self.model.opset_import if entry.domain in domains]
        part = helper.make_model(graph, opset_imports=opsets)
        part.ir_version = self.model.ir_version
        try:
            if opset_of(part) < _EVALUATED:
                # The evaluator knows DequantizeLinear, the usual one here, from that version on only.
                part = version_converter.convert_version(part, _EVALUATED)
            reason = too_large(part)
            if reason is not None:
                raise NotConstantError(reason)
            results: Any = ReferenceEvaluator(part).run(None, {})
            return results[0]
        except NotConstantError:
            raise
        except Exception as error:  # operators of other domains, and faults in the graph
            kinds = ", ".join(sorted({node.op_type for node in nodes}))
            raise NotConstantError(
                f"what {kinds} make of constants cannot be computed ({type(error).__name__}: {error})"
            ) from error


def _require_small(tensor: onnx.TensorProto, folder: Path) -> None:
    """Raise ValueError where more would be read from a second file than the values can take."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    if uses_external_data(tensor):
        said = ExternalDataInfo(tensor)
        count = said.length or (folder / said.location).stat().st_size - (said.offset or 0)
        if count > _WIDEST * max(1, math.prod(tensor.dims)):
            raise ValueError(f"{said.location!r} has {count:,} bytes for values of {list(tensor.dims)}")


def onnx_value(name: str) -> onnx.ValueInfoProto:
    """A value of which only the name is known."""
    import onnx

    return onnx.ValueInfoProto(name=name)


def _torch(name: str, array: Any) -> Tensor:
    """A tensor with a memory of its own; numpy knows no bfloat16, torch none of the narrower floats."""
    array = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    try:
        return torch.from_numpy(array.copy())
    except TypeError as error:
        raise NotConstantError(f"the values of {name!r} are of the kind {array.dtype.name}") from error
