"""What runs a model: PyTorch as it is, compiled, or onnxruntime; example inputs and the bare ONNX file."""

from compressor.runtimes.base import Ready, Runtime, Target
from compressor.runtimes.compiled import Compiled
from compressor.runtimes.eager import Eager
from compressor.runtimes.onnx_runtime import OnnxRuntime
from compressor.runtimes.sessions import Optimization

__all__ = ["Compiled", "Eager", "OnnxRuntime", "Optimization", "Ready", "Runtime", "Target"]
