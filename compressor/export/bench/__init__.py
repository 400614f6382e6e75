"""The phone bench: models timed side by side in WebAssembly, on a page for any phone or in node."""

from __future__ import annotations

from compressor.export.bench.node import NodeLatency, NodeModel, node_latency
from compressor.export.bench.page import BenchPage, bench_page

__all__ = ["BenchPage", "NodeLatency", "NodeModel", "bench_page", "node_latency"]
