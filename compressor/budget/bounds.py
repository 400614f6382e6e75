"""What a fraction of a cost means for one ladder, in exact numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.budget.ladder import Ladder, Lost
from compressor.budget.numbers import exact
from compressor.errors import BudgetError
from compressor.profiling.priced import Priced

__all__ = ["Bound", "unmet"]


@dataclass(frozen=True, eq=False)
class Bound:
    """At most `target` of the `whole` cost; `at` is the cost [...] for ranks lost [..., n_groups]."""

    name: str
    whole: float
    target: float
    at: Callable[[Lost], npt.NDArray[Any]]

    @classmethod
    def of(cls, cost: Priced, fraction: float, ladder: Ladder, what: str) -> Bound:
        """The bound for `fraction` of a cost; `what` asks for it. Raises BudgetError for no cost at all."""
        whole = cost.total()
        if not whole:
            raise BudgetError(f"{what}: the model has no {cost.name} at all, so there is nothing to limit")
        target = exact(fraction) * whole
        exactly = math.floor(target) if isinstance(whole, int) else float(target)
        return cls(cost.name, whole, exactly, cost.along(ladder.order))

    def asks(self, least: Lost) -> str:
        """What is asked, and what is left when the groups lose `least` [n_groups], in words."""
        left = self.at(least).item()
        return (
            f"asks for at most {_amount(self.target)} of {_amount(self.whole)} {self.name}, and "
            f"{_amount(left)} is the least that can be left (fraction {left / self.whole:.4g})"
        )


def unmet(bounds: Sequence[Bound], lost: Lost) -> npt.NDArray[np.int64]:
    """How many of the bounds do not hold [...] when groups lose `lost` [..., n_groups]."""
    return np.asarray(sum((bound.at(lost) > bound.target).astype(np.int64) for bound in bounds))


def _amount(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
