"""Pruned models for other runtimes, each file checked against the model it came from."""

from __future__ import annotations

from compressor.export.bench import NodeLatency, NodeModel, node_latency
from compressor.export.onnx import OnnxReport, onnx

__all__ = ["NodeLatency", "NodeModel", "OnnxReport", "node_latency", "onnx"]
