from __future__ import annotations

import math

import numpy as np
import pytest

from compressor.errors import ExportError
from compressor.export.files.fidelity import Fidelity, Tally

INF, NAN = math.inf, math.nan


def found(expected: list[list[float]], got: list[list[float]]) -> Fidelity:
    tally = Tally(["y"])
    tally.add([np.array(expected)], [np.array(got)], len(expected))
    return tally.fidelity


def test_noise_and_agreement_by_hand_over_two_batches() -> None:
    tally = Tally(["y", "z"])
    z = np.zeros((2, 1, 2))
    tally.add([np.array([[3.0, 4.0], [0.0, 5.0]]), z], [np.array([[3.0, 4.0], [0.0, 4.0]]), z], 2)
    tally.add([np.array([[7.0, 1.0]]), z[:1]], [np.array([[6.0, 8.0]]), z[:1]], 1)
    fidelity = tally.fidelity
    # Signal 9 + 16 + 25 + 49 + 1 = 100, noise 1 + 1 + 49 = 51; the third example changes sides.
    assert fidelity.sqnr_db == {"y": pytest.approx(10 * math.log10(100 / 51)), "z": INF}
    assert fidelity.agreement == {"y": pytest.approx(2 / 3)}
    assert fidelity.examples == 3
    assert str(fidelity) == "y 2.9 dB SQNR, z inf dB SQNR, y top-1 agreement 66.7 %"


@pytest.mark.parametrize(
    ("expected", "got", "db"),
    [
        ([[2.0]], [[2.0]], INF),
        ([[10.0, INF]], [[9.0, INF]], 20.0),
        ([[10.0, NAN]], [[9.0, NAN]], 20.0),
        ([[1.0, INF]], [[1.0, -INF]], -INF),
        ([[1.0, 2.0]], [[1.0, NAN]], -INF),
        ([[1.0, NAN]], [[1.0, 2.0]], -INF),
        ([[1.0, 2.0]], [[1.0, INF]], -INF),
        ([[0.0, 0.0]], [[0.0, 1.0]], -INF),
    ],
)
def test_a_nan_is_never_overlooked(expected: list[list[float]], got: list[list[float]], db: float) -> None:
    assert found(expected, got).sqnr_db["y"] == pytest.approx(db)


def test_whole_numbers_agree_or_do_not() -> None:
    tally = Tally(["label"])
    tally.add([np.array([1, 2, 3, 4])], [np.array([1, 2, 3, 5])], 4)
    assert tally.fidelity == Fidelity(4, {}, {"label": 0.75})


def test_an_output_of_another_shape_is_named() -> None:
    with pytest.raises(ExportError, match=r"the output 'y' is \[1, 1\], expected \[1, 2\]"):
        found([[1.0, 2.0]], [[1.0]])
