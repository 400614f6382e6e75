"""How rows of weights are driven to zero: one small object for each way.

Legend as in `penalties`: K channels, N numbers each.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.training.sparsity.penalties import clipped, lasso, ridge, ridge_below, shrunk, smooth_lasso
from compressor.training.sparsity.strength import Strength, Within, checked_strength

__all__ = [
    "Decay",
    "Form",
    "Growing",
    "Proximal",
    "Ridge",
    "RidgeBelow",
    "SmoothSubgradient",
    "Subgradient",
]

Rate = float | Tensor


class Form(ABC):  # noqa: B024 - either of the two methods is the one to override
    """One way of driving rows to zero; override `gradient` or `values`, and say so in the flags.

    `step` counts optimizer steps from 1, `rate` is the learning rate of the step.

    >>> class Constant(Form):
    ...     '''Pulls every number down by the same force.'''
    ...     on_gradients = True
    ...     def gradient(self, rows_KN, task_KN, *, rate, step):
    ...         return task_KN + 0.1
    """

    on_gradients: ClassVar[bool] = False
    on_values: ClassVar[bool] = False

    def fitted(self, reach: float) -> Form:
        """This form with a strength that brings rows of root mean square `reach` to zero."""
        return self

    def gradient(self, rows_KN: Tensor, task_KN: Tensor, *, rate: Rate, step: int) -> Tensor:
        """The gradient that the optimizer is to see [K, N], given the task's."""
        return task_KN

    def values(self, rows_KN: Tensor, zero_K: Tensor, *, rate: Rate, step: int) -> Tensor:
        """The rows after the optimizer's step [K, N]; `zero_K` tells which were zero before it."""
        return rows_KN


@dataclass(frozen=True)
class _Strong(Form):
    """A form with a strength: a number, or `Within(rates)` to derive it from the schedule."""

    strength: Strength

    def __post_init__(self) -> None:
        """Check the strength."""
        checked_strength(type(self).__name__, self.strength)

    def fitted(self, reach: float) -> Form:
        """This form with a number for its strength."""
        if isinstance(self.strength, Within):
            return replace(self, strength=self.strength.strength(reach))
        return self

    @property
    def number(self) -> float:
        """The strength as a number; only a fitted form has one."""
        assert not isinstance(self.strength, Within)
        return self.strength


@dataclass(frozen=True)
class Subgradient(_Strong):
    """MaskSparsity's own: s · sign(γ) is added to the gradient (of longer rows s √N w / ‖w‖).

    A scale ends up oscillating around zero by about rate · s / (1 − momentum): finish with `silence_`.
    Adam divides by the size of the gradient, which takes the meaning from s: use `Proximal` there.

    *Source: N. Jiang, X. Zhao, C. Zhao, Y. An, M. Tang, J. Wang, 2022, arXiv 2201.06776.*

    >>> Subgradient(5e-4)
    Subgradient(strength=0.0005)
    """

    on_gradients: ClassVar[bool] = True

    def gradient(self, rows_KN: Tensor, task_KN: Tensor, *, rate: Rate, step: int) -> Tensor:
        """The task's plus the lasso's."""
        return task_KN + lasso(rows_KN, self.number)


@dataclass(frozen=True)
class SmoothSubgradient(_Strong):
    """The same with s · γ near zero, |γ| < rate · s, as in the released code of MaskSparsity.

    >>> SmoothSubgradient(5e-4)
    SmoothSubgradient(strength=0.0005)
    """

    on_gradients: ClassVar[bool] = True

    def gradient(self, rows_KN: Tensor, task_KN: Tensor, *, rate: Rate, step: int) -> Tensor:
        """The task's plus the smooth lasso's."""
        return task_KN + smooth_lasso(rows_KN, self.number, rate)


@dataclass(frozen=True)
class Proximal(_Strong):
    """Exact zeros: after each step rows become shorter by rate · s, and stay at zero once there.

    With `Within(rates)` they are at zero after the last of these steps, whatever the task wants: a row is
    never left longer than the push of the steps to come, s · Σ rate. At a margin of 2 only rows that are
    not halfway at half time are ever held to that.

    Departure from a proximal gradient method: a row that has reached zero is held there, whatever the
    task's gradient and the momentum want. The plan has decided about it.

    *Source: N. Parikh, S. Boyd, 2014, Proximal Algorithms.*

    >>> Proximal(Within([0.1] * 100))
    Proximal(strength=Within(100 steps, momentum=0, margin=2))
    """

    on_values: ClassVar[bool] = True

    push_left: tuple[float, ...] | None = field(default=None, repr=False, kw_only=True)

    def fitted(self, reach: float) -> Proximal:
        """This form with a number for its strength, and the push that is left after every step."""
        if not isinstance(self.strength, Within):
            return self
        strength, rates = self.strength.strength(reach), self.strength.rates
        left = [strength * rate for rate in accumulate(reversed(rates), initial=0.0)]
        return Proximal(strength, push_left=tuple(reversed(left)))

    def values(self, rows_KN: Tensor, zero_K: Tensor, *, rate: Rate, step: int) -> Tensor:
        """Shorter rows."""
        rows_KN = shrunk(rows_KN, rate * self.number).masked_fill(zero_K[:, None], 0.0)
        if self.push_left is None:
            return rows_KN
        left = self.push_left[step] if step < len(self.push_left) else 0.0
        return clipped(rows_KN, left) if left else torch.zeros_like(rows_KN)


def _check_positive(form: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InputError(f"{form}: {name} is a number above 0, got {value!r}")


def _check_steps(form: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{form}: {name} is a whole number of steps, at least 1, got {value!r}")


@dataclass(frozen=True)
class Ridge(Form):
    """The L2 variant: s · γ is added to the gradient. Scales shrink exponentially and never reach zero.

    >>> Ridge(5e-4)
    Ridge(strength=0.0005)
    """

    on_gradients: ClassVar[bool] = True

    strength: float

    def __post_init__(self) -> None:
        """Check the strength."""
        _check_positive("Ridge", strength=self.strength)

    def gradient(self, rows_KN: Tensor, task_KN: Tensor, *, rate: Rate, step: int) -> Tensor:
        """The task's plus the ridge's."""
        return task_KN + ridge(rows_KN, self.strength)


@dataclass(frozen=True)
class RidgeBelow(Form):
    """The L2 variant for small scales only: s · γ where |γ| ≤ `bound`.

    *Source: the released code of MaskSparsity ("shiyan").*

    >>> RidgeBelow(5e-4)
    RidgeBelow(strength=0.0005, bound=0.09)
    """

    on_gradients: ClassVar[bool] = True

    strength: float
    _: KW_ONLY
    bound: float = 0.09

    def __post_init__(self) -> None:
        """Check both numbers."""
        _check_positive("RidgeBelow", strength=self.strength, bound=self.bound)

    def gradient(self, rows_KN: Tensor, task_KN: Tensor, *, rate: Rate, step: int) -> Tensor:
        """The task's plus the ridge's on small numbers."""
        return task_KN + ridge_below(rows_KN, self.strength, self.bound)


@dataclass(frozen=True)
class Growing(Form):
    """Growing regularisation: a ridge whose strength grows by `delta` every so many steps up to `ceiling`.

    *Source: H. Wang, C. Qin, Y. Zhang, Y. Fu, 2021, arXiv 2012.09243, GReg-1 (delta 1e-4 every 5 or 10
    steps, ceiling 1).*

    >>> [round(Growing(delta=0.1, every=2, ceiling=0.3).strength(step), 1) for step in range(1, 8)]
    [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3]
    """

    on_gradients: ClassVar[bool] = True

    _: KW_ONLY
    delta: float = 1e-4
    every: int = 5
    ceiling: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check_positive("Growing", delta=self.delta, ceiling=self.ceiling)
        _check_steps("Growing", "every", self.every)

    def strength(self, step: int) -> float:
        """The strength in this step."""
        return min(self.ceiling, self.delta * ((step - 1) // self.every + 1))

    def gradient(self, rows_KN: Tensor, task_KN: Tensor, *, rate: Rate, step: int) -> Tensor:
        """The task's plus the ridge's at this step's strength."""
        return task_KN + ridge(rows_KN, self.strength(step))


@dataclass(frozen=True)
class Decay(Form):
    """Linearly to zero in `steps` steps, whatever the optimizer: exactly zero from then on.

    What is left of a row after step t is (T − t)/(T − t + 1) of what it was before, which without a
    task is (T − t)/T of the start; the task's gradient fades out in the same way. Nothing has to be
    tuned to learning rates, and it serves shifts as well as scales.

    *Source: GradDecay of EasyPruner (institute of automation, CAS), which counts epochs.*

    >>> Decay(1000)
    Decay(steps=1000)
    """

    on_gradients: ClassVar[bool] = True
    on_values: ClassVar[bool] = True

    steps: int

    def __post_init__(self) -> None:
        """Check the number."""
        _check_steps("Decay", "steps", self.steps)

    def gradient(self, rows_KN: Tensor, task_KN: Tensor, *, rate: Rate, step: int) -> Tensor:
        """What is left of the task's; none, also where that is infinite, once rows are at zero."""
        left = max(0, self.steps - step)
        return task_KN * (left / self.steps) if left else torch.zeros_like(task_KN)

    def values(self, rows_KN: Tensor, zero_K: Tensor, *, rate: Rate, step: int) -> Tensor:
        """What is left of the rows."""
        left = max(0, self.steps - step)
        return rows_KN * (left / (left + 1)) if left else torch.zeros_like(rows_KN)
