"""Finding what to remove by asking how good the result is: sensitivity, allocation, search, fronts.

`quality` is what the user's `evaluate(model)` returns, larger = better; a *drop* is how far it falls.
"""

from compressor.search.curves import Curve, Sensitivity
from compressor.search.drops import LeastDrop, MaxDrop
from compressor.search.evaluating import Evaluate
from compressor.search.find import Found, find
from compressor.search.frontier import Frontier, Point, frontier
from compressor.search.output_fidelity import OutputFidelity
from compressor.search.sensitivity import sensitivity

__all__ = [
    "Curve",
    "Evaluate",
    "Found",
    "Frontier",
    "LeastDrop",
    "MaxDrop",
    "OutputFidelity",
    "Point",
    "Sensitivity",
    "find",
    "frontier",
    "sensitivity",
]
