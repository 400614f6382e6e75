"""Structured pruning for PyTorch: remove channels of any network, and prove the result.

import compressor as cp
small = cp.prune(model, x, budget=cp.budget.Macs(0.5))
print(cp.compare(model, small, x))
cp.export.onnx(small, x, "small.onnx")
"""

from compressor import (
    budget,
    design,
    errors,
    evaluation,
    export,
    filters,
    models,
    profiling,
    recovery,
    runtimes,
    scoring,
    search,
    training,
)
from compressor.api import plan, prune
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.rules import rule
from compressor.core.surgery import apply, apply_, plan_of
from compressor.core.verify import verify
from compressor.persistence import load, save, unpruned
from compressor.profiling import compare, profile
from compressor.reporting import report
from compressor.scoring import Scorer, score
from compressor.version import __version__ as __version__

__all__ = [
    "Graph",
    "Plan",
    "Scorer",
    "apply",
    "apply_",
    "budget",
    "capture",
    "compare",
    "design",
    "errors",
    "evaluation",
    "export",
    "filters",
    "load",
    "models",
    "plan",
    "plan_of",
    "profile",
    "profiling",
    "prune",
    "recovery",
    "report",
    "rule",
    "runtimes",
    "save",
    "score",
    "scoring",
    "search",
    "training",
    "unpruned",
    "verify",
]
