"""Optional dependencies, imported only when they are needed."""

from __future__ import annotations

import importlib

from compressor.errors import MissingExtraError
from compressor.runtimes.exporters import quiet

__all__ = ["require_executorch", "require_onnx"]


def require_onnx() -> None:
    """Raise MissingExtraError, with the command that helps, where ONNX or its runtime is absent."""
    for name in ("onnx", "onnxscript", "onnxslim", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f"work with ONNX files needs {name}, which cannot be imported ({error}): "
                f"pip install 'compressor[onnx]'"
            ) from error


def require_executorch() -> None:
    """Raise MissingExtraError, with the command that helps, where ExecuTorch or its quantiser is absent."""
    for name in ("executorch.exir", "executorch.runtime", "torchao"):
        try:
            with quiet():  # it warns of its own deprecations, and that it is experimental
                importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f"exporting to ExecuTorch needs {name}, which cannot be imported ({error}): "
                f"pip install 'compressor[executorch]'"
            ) from error
