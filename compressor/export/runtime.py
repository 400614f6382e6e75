"""Running an ONNX file in onnxruntime and comparing it with the model it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.errors import ExportError

__all__ = ["Runtime", "largest_difference"]


class Runtime:
    """An ONNX file loaded in onnxruntime on the CPU.

    Raises ExportError when onnxruntime refuses the file.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is fatal is raised as well
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common base but this
            raise ExportError(
                f"onnxruntime cannot load {what}: {error}. Its CPU kernels are made for float32: "
                f"for a float64 or half model, export model.float() with float32 inputs"
            ) from error
        self._what = what

    def run(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs on `inputs`, in the order of the file."""
        known = {node.name for node in self._session.get_inputs()}
        feeds = {name: tensor.contiguous().numpy() for name, tensor in inputs.items() if name in known}
        try:
            arrays = self._session.run(None, feeds)
        except Exception as error:
            shapes = {name: list(tensor.shape) for name, tensor in inputs.items()}
            raise ExportError(f"onnxruntime cannot run {self._what} on {shapes}: {error}") from error
        return [torch.from_numpy(np.array(array)) for array in arrays]


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
