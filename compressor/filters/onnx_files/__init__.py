"""Banks of ONNX files: nodes, their weights, their depths."""

from compressor.filters.onnx_files.facts import OnnxFacts
from compressor.filters.onnx_files.reading import OnnxBanks, Unread, banks_of_onnx, read_onnx

__all__ = ["OnnxBanks", "OnnxFacts", "Unread", "banks_of_onnx", "read_onnx"]
