"""What models cost: by arithmetic (MACs, parameters, bytes), and measured (latency, memory)."""

from compressor.profiling.compare import Comparison, compare
from compressor.profiling.cost import (
    Cost,
    activation_bytes,
    macs,
    params,
    removed_by,
    weight_bytes,
)
from compressor.profiling.costs import Costs, costs
from compressor.profiling.guard import Gain, guard
from compressor.profiling.latency import Latency, Timing, latency, measure_latency
from compressor.profiling.latency_table import LatencyCost, LatencyTable, latency_table
from compressor.profiling.memory import Footprint, MeasuredBytes, Memory, memory
from compressor.profiling.operators import Uncounted
from compressor.profiling.peak import Held, Peak, PeakCost, peak_activation_bytes
from compressor.profiling.priced import Priced
from compressor.profiling.profile import Profile, Row, profile
from compressor.profiling.promise import Promise, keeps_promise

__all__ = [
    "Comparison",
    "Cost",
    "Costs",
    "Footprint",
    "Gain",
    "Held",
    "Latency",
    "LatencyCost",
    "LatencyTable",
    "MeasuredBytes",
    "Memory",
    "Peak",
    "PeakCost",
    "Priced",
    "Profile",
    "Promise",
    "Row",
    "Timing",
    "Uncounted",
    "activation_bytes",
    "compare",
    "costs",
    "guard",
    "keeps_promise",
    "latency",
    "latency_table",
    "macs",
    "measure_latency",
    "memory",
    "params",
    "peak_activation_bytes",
    "profile",
    "removed_by",
    "weight_bytes",
]
