"""What a budget needs of a cost, whether it adds up over layers or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from compressor.core.channels import Mask
from compressor.profiling.counting import Counts, RemovalOrder

__all__ = ["Priced"]


class Priced(Protocol):
    """A cost of one graph for any removal of units, which never grows when more units go.

    Whole numbers are compared exactly; a cost measured in fractions (milliseconds) gives floats. `Cost`
    is the one that adds up.
    """

    @property
    def name(self) -> str:
        """What is counted, in the plural or with its unit: "MACs", "ms of latency"."""

    def total(self, removed: Mask | None = None) -> float:
        """The whole cost when the `removed` [n_units] units go (None: nothing goes)."""

    def by_module(self, removed: Mask | None = None) -> Mapping[str, float]:
        """The share of each module path in `total(removed)`; those of all modules sum up to it."""

    def along(self, order: RemovalOrder) -> Callable[[Counts], npt.NDArray[Any]]:
        """The cost [...] as a function of the ranks lost [..., n_groups], see `Cost.along`."""
