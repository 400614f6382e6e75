"""Latency tables: measured layers, and what they say of any cut of a whole network."""

from compressor.profiling.latency_table.building import fastest_multiple, latency_table
from compressor.profiling.latency_table.costing import LatencyCost
from compressor.profiling.latency_table.table import LatencyTable

__all__ = ["LatencyCost", "LatencyTable", "fastest_multiple", "latency_table"]
