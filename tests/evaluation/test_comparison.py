from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from compressor.errors import InputError
from compressor.evaluation import ClassComparison, Predictions, compare_classes
from compressor.evaluation.comparison import holm

NAMES = ("a", "b", "c")


def predictions(true: list[int], predicted: list[int]) -> Predictions:
    return Predictions(np.array(true), np.array(predicted), NAMES)


def compared(true: list[int], before: list[int], after: list[int]) -> ClassComparison:
    return compare_classes(predictions(true, before), predictions(true, after))


TRUE = [0] * 6 + [1] * 4 + [2] * 2
BEFORE = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 0]
AFTER = [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 2]


def test_counts_by_hand_the_most_hurt_first() -> None:
    found = compared(TRUE, BEFORE, AFTER)
    assert [c.name for c in found.changes] == ["b", "c", "a"]
    b, c, a = found.changes
    assert (b.samples, b.lost, b.gained, b.before.value, b.after.value) == (4, 3, 0, 1.0, 0.25)
    assert (c.samples, c.lost, c.gained, c.change.value) == (2, 1, 1, 0.0)
    assert (a.samples, a.lost, a.gained) == (6, 0, 1)
    assert found.balanced_accuracy_change == pytest.approx((1 / 6 - 3 / 4 + 0) / 3)


def test_the_p_value_counts_the_arrangements_that_are_as_lopsided() -> None:
    for lost, gained in ((3, 0), (5, 1), (2, 2), (0, 4), (0, 0)):
        n = lost + gained
        sides = [sum(flips) for flips in itertools.product((0, 1), repeat=n)]
        extreme = [side for side in sides if abs(side - n / 2) >= abs(lost - n / 2)]
        true = [0] * n + [0, 1, 2]
        before = [0] * lost + [1] * gained + [0, 1, 2]
        after = [1] * lost + [0] * gained + [0, 1, 2]
        a = next(c for c in compared(true, before, after).changes if c.name == "a")
        assert a.p_value == pytest.approx(len(extreme) / len(sides))


def test_the_interval_of_the_difference_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    cells = np.array([0.6, 0.2, 0.08, 0.12])  # right in both, lost, gained, wrong in both
    held = 0
    for _ in range(400):
        kind = rng.choice(4, 60, p=cells)
        before, after = np.where(kind < 2, 0, 1), np.where((kind == 0) | (kind == 2), 0, 1)
        found = compared([0] * 60, before.tolist(), after.tolist()).changes[0].change
        held += found.low <= 0.08 - 0.2 <= found.high
    assert 0.92 <= held / 400 <= 0.985


def test_no_change_is_no_evidence() -> None:
    found = compared(TRUE, BEFORE, BEFORE)
    assert all(
        c.p_value == 1 and c.change.value == 0 and c.change.low < 0 < c.change.high for c in found.changes
    )


def test_a_large_set_shows_a_small_harm_that_a_small_set_does_not() -> None:
    def p(times: int) -> float:
        return (
            compared([0] * 50 * times, [0] * 50 * times, ([1] * 2 + [0] * 48) * times).changes[0].p_adjusted
        )

    assert p(1) > 0.05 > p(5)


def test_holm_is_the_stepwise_definition() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        p_values = rng.random(5) ** 3
        for level in (0.01, 0.05, 0.2):
            rejected, order = set(), np.argsort(p_values)
            for step, i in enumerate(order):
                if p_values[i] > level / (5 - step):
                    break
                rejected.add(int(i))
            assert {i for i, p in enumerate(holm(p_values.tolist())) if p <= level} == rejected


def test_a_class_without_samples_is_named() -> None:
    found = compared([0, 0, 1], [0, 0, 1], [0, 1, 1])
    assert found.absent == ("c",) and "no sample of c" in found.summary()
    assert [c.name for c in found.changes] == ["a", "b"]


def test_other_samples_are_refused() -> None:
    with pytest.raises(InputError, match="the same samples in the same order: does the loader shuffle"):
        compare_classes(predictions([0, 1], [0, 1]), predictions([1, 0], [0, 1]))
    with pytest.raises(InputError, match=r"labels before \(2 samples\) and after \(3\)"):
        compare_classes(predictions([0, 1], [0, 1]), predictions([0, 1, 1], [0, 1, 1]))
    other = Predictions(np.array([0, 1]), np.array([0, 1]), ("a", "b", "z"))
    with pytest.raises(InputError, match="the same classes"):
        compare_classes(predictions([0, 1], [0, 1]), other)


def test_the_summary_reads_from_the_most_hurt() -> None:
    lines = compared(TRUE, BEFORE, AFTER).summary().splitlines()
    assert lines[0].split() == [
        "class",
        "samples",
        "before",
        "after",
        "change",
        "lost",
        "gained",
        "p",
        "(Holm)",
    ]
    b = compared(TRUE, BEFORE, AFTER).changes[0].change
    assert " ".join(lines[1].split()).startswith(f"b 4 1.000 0.250 -0.750 ({b.low:+.3f} to {b.high:+.3f})")
    assert math.isclose(b.low, -3 / 6 - 1.959964 * math.sqrt(4 - 9 / 6) / 6, abs_tol=1e-6)
    assert lines[-1].startswith("balanced accuracy -0.194")
