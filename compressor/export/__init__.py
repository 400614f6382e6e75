"""Models for other runtimes, each file checked against what it came from; small files for phones."""

from __future__ import annotations

from compressor.export.bench import BenchPage, NodeLatency, NodeModel, bench_page, node_latency
from compressor.export.bundle import Bundle, mobile
from compressor.export.executorch import ExecutorchReport, executorch
from compressor.export.files.comparing import FileComparison, FileRow, compare_files
from compressor.export.files.fidelity import Fidelity
from compressor.export.low_precision.accepting import Acceptance, LowPrecisionReport
from compressor.export.low_precision.half_precision import fp16
from compressor.export.low_precision.quantising import dynamic_int8, int8
from compressor.export.metadata import Metadata, read_metadata
from compressor.export.onnx import OnnxReport, onnx
from compressor.export.ort_mobile.fixed_shapes import fix_shapes
from compressor.export.ort_mobile.ort_format import OrtFile, OrtReport, OrtStyle, ort
from compressor.export.ort_mobile.usability import ProviderUsability, Usability, Verdict, usability
from compressor.runtimes.exporters import Exporter

__all__ = [
    "Acceptance",
    "BenchPage",
    "Bundle",
    "ExecutorchReport",
    "Exporter",
    "Fidelity",
    "FileComparison",
    "FileRow",
    "LowPrecisionReport",
    "Metadata",
    "NodeLatency",
    "NodeModel",
    "OnnxReport",
    "OrtFile",
    "OrtReport",
    "OrtStyle",
    "ProviderUsability",
    "Usability",
    "Verdict",
    "bench_page",
    "compare_files",
    "dynamic_int8",
    "executorch",
    "fix_shapes",
    "fp16",
    "int8",
    "mobile",
    "node_latency",
    "onnx",
    "ort",
    "read_metadata",
    "usability",
]
