"""Running an ONNX file in onnxruntime and comparing it with the model it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.errors import ExportError
from compressor.runtimes.onnx_graph import opset_of
from compressor.runtimes.ort_session import open_session

__all__ = ["Optimization", "Session", "largest_difference"]


class Optimization(Enum):
    """How far onnxruntime rewrites a graph before it runs; the names are its own."""

    NONE = "ORT_DISABLE_ALL"
    BASIC = "ORT_ENABLE_BASIC"
    EXTENDED = "ORT_ENABLE_EXTENDED"
    ALL = "ORT_ENABLE_ALL"

    def __repr__(self) -> str:
        return f"Optimization.{self.name}"


class Session:
    """An ONNX file loaded in onnxruntime on the CPU, with `threads` threads (None: as many as it likes).

    Bytes instead of a path are loaded without the weights that a file may have beside it.
    Raises ExportError when onnxruntime refuses the file.
    """

    def __init__(
        self,
        path: Path | bytes,
        *,
        what: str,
        threads: int | None = None,
        optimization: Optimization = Optimization.ALL,
        arena: bool = True,
        memory_pattern: bool = True,
    ) -> None:
        try:
            self._session = open_session(
                path if isinstance(path, bytes) else str(path),
                threads=threads,
                optimization=optimization.value,
                arena=arena,
                memory_pattern=memory_pattern,
            )
        except Exception as error:  # onnxruntime's errors have no common base but this
            said = str(error).rstrip(" .")
            raise ExportError(f"onnxruntime cannot load {what}: {said}. {_advice(path, error)}") from error
        self._what = what

    @property
    def inputs(self) -> dict[str, tuple[int | str | None, ...]]:
        """Names and sizes of the inputs, free axes by name, in the order of the file."""
        return {node.name: tuple(node.shape) for node in self._session.get_inputs()}

    @property
    def input_types(self) -> dict[str, str]:
        """The types of the inputs in onnxruntime's words, `tensor(float)`."""
        return {node.name: str(node.type) for node in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs on `inputs`, in the order of the file; inputs that the file has not are left out."""
        known = self.inputs
        arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.items() if name in known}
        return [torch.from_numpy(np.array(array)) for array in self.run_arrays(arrays)]

    def run_arrays(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The outputs on arrays, in the order of the file; raises ExportError where it cannot run."""
        try:
            outputs: list[npt.NDArray[Any]] = self._session.run(None, feeds)
        except Exception as error:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise ExportError(f"onnxruntime cannot run {self._what} on {shapes}: {error}") from error
        return outputs


def _advice(file: Path | bytes, error: Exception) -> str:
    """The likely fix: float32 for a missing kernel, a newer runtime for a version it does not know."""
    import onnx as onnx_format
    import onnxruntime

    if re.search(r"NOT_IMPLEMENTED|Type Error", str(error)):
        return (
            "Its CPU kernels are made for float32: for a float64 or half model, export model.float() with "
            "float32 inputs"
        )
    if not re.search(r"IR version|opset", str(error)):
        return "If the file is damaged, export it again"
    data = file if isinstance(file, bytes) else file.read_bytes()
    proto = onnx_format.load_from_string(data)
    return (
        f"onnxruntime {onnxruntime.__version__} is too old for a file of IR version {proto.ir_version}, "
        f"opset {opset_of(proto)}: pip install -U onnxruntime, or export with opset=18"
    )


def largest_difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference relative to the largest finite expected value of the same output.

    Infinite where number, shape or kind of the outputs differ, where whole numbers differ at all,
    and where one has an infinity or a NaN that the other has not.
    """
    if len(expected) != len(found):
        return float("inf")
    return max((_difference(a, b) for a, b in zip(expected, found, strict=True)), default=0.0)


def _difference(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, found) else float("inf")
    a, b = expected.double(), found.double()
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)) or not torch.equal(
        a[~finite].nan_to_num(nan=0.0), b[~finite].nan_to_num(nan=0.0)
    ):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    scale = float(a[finite].abs().max()) or 1.0
    return float((a - b)[finite].abs().max()) / scale
