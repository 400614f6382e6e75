"""A number that is no share is refused with words that say what to do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compressor.budget import Budget, Global, Macs, Params, Uniform
from compressor.budget.numbers import exact
from compressor.errors import BudgetError


@pytest.mark.parametrize("make", [Uniform, Global])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "= 0 removes nothing"),
        (1, "= 1 removes every channel"),
        (-0.5, "= -0.5: the share that is removed lies between 0 and 1"),
        (50, "for 50 % give 0.5"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        ("0.5", r"'0.5' \(str\)"),
        (None, "NoneType"),
        (True, "bool"),
    ],
)
def test_a_ratio_lies_between_0_and_1(make: type[Budget], value: object, text: str) -> None:
    with pytest.raises(BudgetError, match=text):
        make(value)  # type: ignore[call-arg]


@pytest.mark.parametrize("make", [Macs, Params])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "= 0 leaves nothing"),
        (1, "= 1 leaves everything"),
        (1.0, "= 1 leaves everything"),
        (-0.1, "= -0.1: the share that is left lies between 0 and 1"),
        (30, "for 30 % give 0.3"),
        (math.nan, "nan"),
        ([0.5], "list"),
    ],
)
def test_a_fraction_lies_between_0_and_1(make: type[Budget], value: object, text: str) -> None:
    with pytest.raises(BudgetError, match=f"{make.__name__}.*{text}"):
        make(value)  # type: ignore[call-arg]


def test_numpy_numbers_are_numbers() -> None:
    assert Uniform(np.float32(0.5)) == Uniform(0.5)
    assert Macs(0.5, round_to=np.int64(8)).round_to == 8  # type: ignore[arg-type]


def test_numbers_are_read_as_they_are_written() -> None:
    for percent in range(101):
        assert exact(percent / 100) * 100 == percent
