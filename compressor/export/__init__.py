"""Pruned models for other runtimes, each file checked against the model it came from."""

from __future__ import annotations

from compressor.export.onnx import OnnxReport, onnx

__all__ = ["OnnxReport", "onnx"]
