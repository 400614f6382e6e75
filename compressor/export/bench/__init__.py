"""The phone bench: models timed side by side in WebAssembly, on a page for any phone or in node."""

from __future__ import annotations

from compressor.export.bench.node import NodeLatency, NodeModel, node_latency

__all__ = ["NodeLatency", "NodeModel", "node_latency"]
