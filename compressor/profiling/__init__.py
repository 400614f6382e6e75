"""What models cost: by arithmetic (MACs, parameters, bytes), and measured (latency, memory)."""

from compressor.profiling.compare import Comparison, compare
from compressor.profiling.cost import (
    Cost,
    Costs,
    activation_bytes,
    costs,
    macs,
    params,
    removed_by,
    weight_bytes,
)
from compressor.profiling.latency import Latency, Timing, latency, measure_latency
from compressor.profiling.memory import Footprint, MeasuredBytes, Memory, memory
from compressor.profiling.operators import Uncounted
from compressor.profiling.priced import Priced
from compressor.profiling.profile import Profile, Row, profile

__all__ = [
    "Comparison",
    "Cost",
    "Costs",
    "Footprint",
    "Latency",
    "MeasuredBytes",
    "Memory",
    "Priced",
    "Profile",
    "Row",
    "Timing",
    "Uncounted",
    "activation_bytes",
    "compare",
    "costs",
    "latency",
    "macs",
    "measure_latency",
    "memory",
    "params",
    "profile",
    "removed_by",
    "weight_bytes",
]
