"""Structured pruning for PyTorch: remove channels of any network, and prove the result.

import compressor as cp
small = cp.prune(model, x, budget=cp.budget.Macs(0.5))
print(cp.compare(model, small, x))
cp.export.onnx(small, x, "small.onnx")

Importing it is quick: each name is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from compressor.version import __version__ as __version__

if TYPE_CHECKING:
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

# Where the names above are that are no packages: what type checkers read above, for the interpreter.
_HOMES = {
    "api": ("plan", "prune"),
    "core.capture": ("capture",),
    "core.graph": ("Graph",),
    "core.plan": ("Plan",),
    "core.rules": ("rule",),
    "core.surgery": ("apply", "apply_", "plan_of"),
    "core.verify": ("verify",),
    "persistence": ("load", "save", "unpruned"),
    "profiling": ("compare", "profile"),
    "reporting": ("report",),
    "scoring": ("Scorer", "score"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # a type checker would take any name from it

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = _HOME_OF.get(name)
        if home is None:
            return import_module(f"{__name__}.{name}")  # which makes it an attribute
        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
