"""Optional dependencies, imported only when they are needed."""

from __future__ import annotations

from compressor.extras import imported
from compressor.runtimes.exporters import quiet

__all__ = ["require_executorch", "require_onnx"]


def require_onnx() -> None:
    """Raise MissingExtraError, with the command that helps, where ONNX or its runtime is absent."""
    for name in ("onnx", "onnxscript", "onnxslim", "onnxruntime"):
        imported(name, extra="onnx", needed_for="work with ONNX files")


def require_executorch() -> None:
    """Raise MissingExtraError, with the command that helps, where ExecuTorch or its quantiser is absent."""
    for name in ("executorch.exir", "executorch.runtime", "torchao"):
        with quiet():  # it warns of its own deprecations, and that it is experimental
            imported(name, package=name, extra="executorch", needed_for="exporting to ExecuTorch")
