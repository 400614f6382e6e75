"""How many channels may stay: ratios (`Uniform`, `Global`), fractions of costs (`Macs` … `All`), thresholds.

`ratio` is what is removed, `fraction` is what is left. Every budget takes the limits of `Budget`
(`ignore`, `max_ratio`, `ratios`, `min_channels`, `round_to`) as keywords.
"""

from compressor.budget.all_of import All
from compressor.budget.base import Budget
from compressor.budget.by_degeneracy import ByDegeneracy
from compressor.budget.cost_fraction import Bytes, CostFraction, Macs, Params
from compressor.budget.global_ratio import Global
from compressor.budget.ladder import Ladder, by_ratio, by_score
from compressor.budget.latency import Latency, by_score_per_ms, where_it_pays
from compressor.budget.memory import Memory
from compressor.budget.per_cost import by_score_per_mac
from compressor.budget.schedule import Step, next_step, stages
from compressor.budget.threshold import OptimalThreshold, Threshold, optimal_threshold
from compressor.budget.uniform import Uniform
from compressor.budget.widths import Widths

__all__ = [
    "All",
    "Budget",
    "ByDegeneracy",
    "Bytes",
    "CostFraction",
    "Global",
    "Ladder",
    "Latency",
    "Macs",
    "Memory",
    "OptimalThreshold",
    "Params",
    "Step",
    "Threshold",
    "Uniform",
    "Widths",
    "by_ratio",
    "by_score",
    "by_score_per_mac",
    "by_score_per_ms",
    "next_step",
    "optimal_threshold",
    "stages",
    "where_it_pays",
]
