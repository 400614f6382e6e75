"""An ONNX file whose free axes are fixed: what the compilers of phones ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from compressor.errors import ExportError, InputError
from compressor.export.files.onnxruntime_tools import contained, require_tools
from compressor.export.files.sources import Source, read_source
from compressor.export.metadata import refresh_metadata
from compressor.export.writing import drafted
from compressor.runtimes.sessions import Session

__all__ = ["fix_shapes"]


def fix_shapes(
    source: str | os.PathLike[str], shapes: Mapping[str, Sequence[int]], path: str | os.PathLike[str]
) -> Path:
    """Write `source` to `path` with inputs of exactly `shapes` [name: sizes]; return the path.

    NNAPI and CoreML take nodes of fixed sizes only. Done by onnxruntime's make_dynamic_shape_fixed. Raises
    InputError for shapes that do not fit the file's inputs or leave an axis free, and ExportError where the
    file cannot be written, or onnxruntime does not load it; then none is written.

    >>> import compressor as cp
    >>> cp.export.fix_shapes("net.onnx", {"x": (1, 3, 32, 32)}, "net.fixed.onnx")  # doctest: +SKIP
    """
    require_tools()
    file, path = read_source(source), Path(path)
    if path.resolve() == file.path.resolve():
        raise InputError(f"{path} is the source itself; the new file needs another name")
    _check(file, shapes)
    with drafted(path) as draft:
        _write(file, shapes, draft)
    return path


def _write(source: Source, shapes: Mapping[str, Sequence[int]], draft: Path) -> None:
    import onnx
    from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_input_shape_fixed

    proto = onnx.ModelProto()
    proto.CopyFrom(source.proto)
    try:
        with contained():
            for name, shape in shapes.items():
                make_input_shape_fixed(proto.graph, name, list(shape))
            fix_output_shapes(proto)
    except Exception as error:
        raise ExportError(f"the shapes of {source.path} cannot be fixed: {error}") from error
    refresh_metadata(proto)
    draft.write_bytes(proto.SerializeToString(deterministic=True))
    Session(draft, what=f"{source.path} with fixed shapes")


def _check(source: Source, shapes: Mapping[str, Sequence[int]]) -> None:
    listed = ", ".join(f"{name} [{', '.join(map(str, dims))}]" for name, dims in source.inputs.items())
    if (
        not isinstance(shapes, Mapping)
        or set(shapes) - set(source.inputs)
        or not all(isinstance(shape, Sequence) for shape in shapes.values())
    ):
        raise InputError(f"shapes = {shapes!r}: {source.path} has the inputs {listed}")
    sizes: dict[str, int] = {}
    for name, dims in source.inputs.items():
        shape = tuple(shapes.get(name, ()))
        if not shape and not any(isinstance(dim, str) for dim in dims):
            continue
        fits = len(shape) == len(dims) and all(
            size >= 1 and (sizes.setdefault(dim, size) if isinstance(dim, str) else dim) == size
            for dim, size in zip(dims, shape, strict=True)
        )
        if not fits:
            raise InputError(f"shapes gives the input {name!r} {list(shape)}; {source.path} has {listed}")
