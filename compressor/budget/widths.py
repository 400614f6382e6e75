"""What chooses widths where they are no multiples of one number: a measured curve, say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from compressor.core.graph import Graph

__all__ = ["Widths"]


@runtime_checkable
class Widths(Protocol):
    """Says for each group of a graph how many ranks it may lose; a `LatencyTable` does."""

    def rungs(self, graph: Graph) -> Sequence[npt.NDArray[np.int64]]:
        """For each group the numbers of ranks that it may lose, ascending from 0."""
