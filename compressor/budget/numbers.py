"""Reading the numbers of a budget: exactly, and only where they make sense."""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Integral, Real

from compressor.errors import BudgetError

__all__ = ["check_count", "check_fraction", "check_part", "check_ratio", "exact"]


def exact(value: float) -> Fraction:
    """The number as it is written in decimals: 0.29 is 29/100, not the binary number next to it.

    >>> int(0.29 * 100), int(exact(0.29) * 100)
    (28, 29)
    """
    return Fraction(repr(float(value)))


def check_ratio(what: str, value: object) -> None:
    """Raise BudgetError unless `value` is a removed share: a number > 0 and < 1."""
    _check_share(what, value, "the removed share", "removed", ("removes nothing", "removes every channel"))


def check_fraction(what: str, value: object) -> None:
    """Raise BudgetError unless `value` is a share that is left: a number > 0 and < 1."""
    _check_share(what, value, "the share that is left", "left", ("leaves nothing", "leaves everything"))


def check_part(what: str, value: object, *, low: bool, high: bool) -> None:
    """Raise BudgetError unless 0 < value < 1; `low` allows 0, `high` allows 1."""
    number = _number(what, value, "a number between 0 and 1")
    if not (0 < number < 1 or (low and number == 0) or (high and number == 1)):
        ends = f"{'0 <=' if low else '0 <'} {what} {'<= 1' if high else '< 1'}"
        raise BudgetError(f"{what} = {number:g}: a removed share with {ends} is expected")


def check_count(what: str, value: object) -> None:
    """Raise BudgetError unless `value` is a whole number of channels, at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise BudgetError(f"{what} = {value!r}: a whole number of channels, at least 1, is expected")


def _number(what: str, value: object, meaning: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise BudgetError(f"{what} = {value!r} ({type(value).__name__}): {meaning}, is expected")
    number = float(value)
    if not math.isfinite(number):
        raise BudgetError(f"{what} = {number}: {meaning}, is expected")
    return number


def _check_share(what: str, value: object, share: str, verb: str, ends: tuple[str, str]) -> None:
    """Raise BudgetError unless 0 < value < 1; `ends` say what 0 and 1 would do."""
    number = _number(what, value, f"{share}, a number between 0 and 1")
    if number in (0, 1):
        raise BudgetError(f"{what} = {number:g} {ends[int(number)]}; give {share}, between 0 and 1")
    if not 0 < number < 1:
        hint = f"; for {number:g} % give {number / 100:g}" if 1 < number <= 100 else ""
        raise BudgetError(f"{what} = {number:g}: the share that is {verb} lies between 0 and 1{hint}")
