"""An ONNX file that another file is made of: reading it, and what the new one has in common with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from compressor.errors import ExportError, FileError, InputError
from compressor.runtimes.onnx_graph import Dims, dims_of, strip

if TYPE_CHECKING:
    import onnx

__all__ = ["Source", "float_bytes", "read_source", "tidy_like"]


@dataclass(frozen=True, eq=False)
class Source:
    """A file in memory: its graph, and name, sizes (free axes by name) and kind of each input."""

    path: Path
    proto: onnx.ModelProto
    inputs: Mapping[str, Dims]
    dtypes: Mapping[str, np.dtype[np.generic]]

    @property
    def file_bytes(self) -> int:
        """The size of the file."""
        return self.path.stat().st_size

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return tuple(value.name for value in self.proto.graph.output)

    @property
    def is_quantised(self) -> bool:
        """Whether any of its operators works on whole numbers of 8 bits or less."""
        kinds = {node.op_type for node in self.proto.graph.node}
        return any(
            "quantize" in kind.lower() or kind.startswith("QLinear") or kind.endswith(("Integer", "NBits"))
            for kind in kinds
        )

    def require_float32(self, purpose: str) -> None:
        """Raise InputError for a file that is quantised or in half precision already."""
        from onnx import TensorProto

        halves = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
        if self.is_quantised:
            found = "is quantised already"
        elif any(weight.data_type in halves for weight in self.proto.graph.initializer):
            found = "holds weights in half precision"
        else:
            return
        raise InputError(f"{self.path} {found}; {purpose} starts from the float32 file that onnx() wrote")


def read_source(source: str | os.PathLike[str]) -> Source:
    """The file in memory; raises FileError where it is none, or keeps its weights in a second file."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    if not isinstance(source, str | os.PathLike):
        hint = '; write it first: onnx(model, x, "net.onnx")' if isinstance(source, nn.Module) else ""
        raise InputError(f"source is the path of an ONNX file, got {type(source).__name__}{hint}")
    path = Path(source)
    if not path.is_file():
        raise FileError(f"{path} is no file; source is the path of an ONNX file")
    try:
        proto = onnx.load(str(path), load_external_data=False)
        if not proto.graph.node or not proto.graph.output:
            raise ValueError("it holds no graph")
    except Exception as error:
        raise FileError(f"{path} is no ONNX file: {error}") from error
    if any(uses_external_data(weight) for weight in proto.graph.initializer):
        raise FileError(f"{path} keeps weights in a second file; onnx() writes a single one")
    weights = {weight.name for weight in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    kinds = {v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in inputs}
    return Source(path, proto, {value.name: _named(value.name, dims_of(value)) for value in inputs}, kinds)


def tidy_like(proto: onnx.ModelProto, source: Source) -> None:
    """Leave in `proto` of what a tool wrote only what computes, and the metadata of `source`; in place.

    Raises ExportError where names or sizes of inputs or outputs are no longer those of `source`.
    """
    strip(proto)
    del proto.metadata_props[:]
    proto.metadata_props.extend(source.proto.metadata_props)
    used = {node.domain for node in proto.graph.node} | {
        node.domain for f in proto.functions for node in f.node
    }
    kept = [entry for entry in proto.opset_import if not entry.domain or entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    _name_free_axes_like(proto, source)
    found, expected = _interface(proto), _interface(source.proto)
    if found != expected:
        raise ExportError(
            f"the file made of {source.path} has the inputs and outputs {found}, expected those of its "
            f"source, {expected}; no file was written. Please report it"
        )


def _name_free_axes_like(proto: onnx.ModelProto, source: Source) -> None:
    """Give free axes of outputs their names back; inference of shapes makes up others for 3 * height, say."""
    before = {value.name: value for value in source.proto.graph.output}
    for value in proto.graph.output:
        if value.name in before:
            found, expected = dims_of(value), dims_of(before[value.name])
            pairs = zip(found, expected, strict=False)
            free = all(a == b or (_is_free(a) and _is_free(b)) for a, b in pairs)
            if len(found) == len(expected) and free:
                value.type.CopyFrom(before[value.name].type)


def _is_free(dim: int | str) -> bool:
    return isinstance(dim, str) or dim == 0


def float_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of the weights that are float32."""
    from onnx import TensorProto

    return 4 * sum(
        int(np.prod(weight.dims))
        for weight in proto.graph.initializer
        if weight.data_type == TensorProto.FLOAT
    )


def _named(name: str, dims: Dims) -> Dims:
    """The sizes with a name for free axes that have none."""
    return tuple(dim or f"{name}_axis{axis}" for axis, dim in enumerate(dims))


def _interface(proto: onnx.ModelProto) -> tuple[dict[str, Dims], dict[str, Dims]]:
    weights = {weight.name for weight in proto.graph.initializer}
    inputs = {value.name: dims_of(value) for value in proto.graph.input if value.name not in weights}
    return inputs, {value.name: dims_of(value) for value in proto.graph.output}
