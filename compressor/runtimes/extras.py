"""Optional dependencies, imported only when they are needed."""

from __future__ import annotations

import importlib

from compressor.errors import MissingExtraError

__all__ = ["require_onnx"]


def require_onnx() -> None:
    """Raise MissingExtraError, with the command that helps, where ONNX or its runtime is absent."""
    for name in ("onnx", "onnxscript", "onnxslim", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f"exporting to ONNX needs {name}, which cannot be imported ({error}): "
                f"pip install 'compressor[onnx]'"
            ) from error
