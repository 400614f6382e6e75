"""The table of operator rules: what each operator does to labels.

One function serves one family of operators. A user adds a rule for an operator of their own with the
same decorator:

    @rule("mylib.shuffle.default")
    def shuffle(call: Call) -> Layers: ...

An operator without a rule pins every label that enters it. Torch marks most element-wise operators
as such; those need no entry.
"""

from __future__ import annotations

from compressor.core.rules import (
    contraction,
    convolution,
    elementwise,
    fresh,
    movement,
    normalisation,
    pairwise,
    picking,
    recurrent,
    reduction,
    spatial,
    spectrum,
    splitting,
    viewing,
)
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.table import RULES, rule

__all__ = [
    "RULES",
    "Call",
    "Layers",
    "contraction",
    "convolution",
    "elementwise",
    "fresh",
    "movement",
    "normalisation",
    "pairwise",
    "picking",
    "recurrent",
    "reduction",
    "rule",
    "spatial",
    "spectrum",
    "splitting",
    "viewing",
]
