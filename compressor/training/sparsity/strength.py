"""How strong a penalty must be to reach zero within a training schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from compressor.errors import InputError

__all__ = ["Strength", "Within", "checked_strength", "strength_within"]


def strength_within(
    rates: Sequence[float], reach: float, *, momentum: float = 0.0, margin: float = 2.0
) -> float:
    """The strength s whose total push over the steps is `margin` times `reach`.

    A lasso of strength s moves a scale by rate · s in each step, and through a momentum buffer by
    rate · s / (1 − momentum) in the end. So over the learning rates of all steps

        push = Σ_t rate_t · s / (1 − momentum),      s = margin · reach · (1 − momentum) / Σ_t rate_t

    where `reach` is the largest |γ| that has to become 0. Proximal steps pass by the momentum: leave it
    at 0. The margin is for what the task's gradient pushes back, and for weight decay left out.

    >>> round(strength_within([0.1] * 100, 1.5, momentum=0.9, margin=2), 6)
    0.03
    """
    if not rates or not all(math.isfinite(rate) and rate >= 0 for rate in rates) or not sum(rates):
        raise InputError(
            f"rates must be the learning rates of all steps, {_shown(rates)} given: expected numbers "
            f"from 0 up that are not all 0, such as [0.01] * steps"
        )
    if not 0 <= momentum < 1:
        raise InputError(f"momentum = {momentum}: a number >= 0 and < 1 is expected")
    if not (math.isfinite(margin) and margin > 0):
        raise InputError(f"margin = {margin}: a number above 0 is expected, more than 1 to arrive")
    return margin * reach * (1 - momentum) / math.fsum(rates)


def _shown(rates: Sequence[float]) -> str:
    return f"{len(rates)} numbers" if len(rates) > 5 else f"{list(rates)}"


@dataclass(frozen=True)
class Within:
    """A strength that follows from the schedule: enough to be at zero at its end, see `strength_within`.

    `rates` are the learning rates of all steps of the sparse training.

    >>> round(Within([0.1, 0.01]).strength(reach=1.1), 6)
    20.0
    """

    rates: Sequence[float]
    _: KW_ONLY
    momentum: float = 0.0
    margin: float = 2.0

    def __post_init__(self) -> None:
        """Check the numbers, and take a copy of the rates."""
        object.__setattr__(self, "rates", tuple(self.rates))
        self.strength(1.0)

    def strength(self, reach: float) -> float:
        """The strength for scales of up to `reach`."""
        return strength_within(self.rates, reach, momentum=self.momentum, margin=self.margin)

    def __repr__(self) -> str:
        return f"Within({len(self.rates)} steps, momentum={self.momentum:g}, margin={self.margin:g})"


Strength = float | Within


def checked_strength(form: str, strength: Strength) -> None:
    """Raise InputError unless it is a positive number or a schedule."""
    if isinstance(strength, Within):
        return
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 < strength < math.inf:
        raise InputError(f"{form}: the strength is a number above 0 or Within(rates), got {strength!r}")
