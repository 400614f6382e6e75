from __future__ import annotations

import math

import pytest

from compressor.errors import InputError
from compressor.filters.quality import (
    PUBLISHED_THRESHOLD,
    Bounds,
    Verdict,
    is_degenerate,
    threshold_for,
    verdicts,
)

# S, H, n: what holds, and whether the combined rule calls it degenerate. T_H(4096) = 0.951, T_H(64) = 0.906.
CASES = {
    "healthy": (0.0, 0.80, 4096, [Verdict.HEALTHY], False),
    "just under random": (0.0, 0.930, 4096, [Verdict.HEALTHY], False),
    "random": (0.0, 0.932, 4096, [Verdict.RANDOM], True),
    "random among few": (0.0, 0.89, 64, [Verdict.RANDOM], True),
    "few shapes": (0.13, 0.49, 4096, [Verdict.LOW_DIVERSITY], False),
    "sparse": (0.14, 0.50, 4096, [Verdict.SPARSE], False),
    "sparse, of few shapes": (0.14, 0.49, 4096, [Verdict.SPARSE, Verdict.LOW_DIVERSITY], True),
    "sparse, the rest random": (0.35, 0.95, 4096, [Verdict.SPARSE, Verdict.RANDOM], True),
    "too few": (0.0, 0.1, 7, [Verdict.UNJUDGED], None),
    "too few, and sparse": (0.5, 0.1, 7, [Verdict.SPARSE], None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rules_by_hand(case: str) -> None:
    sparsity, entropy, n, expected, degenerate = CASES[case]
    assert list(verdicts(sparsity, entropy, n, PUBLISHED_THRESHOLD)) == expected
    assert is_degenerate(sparsity, entropy, n, PUBLISHED_THRESHOLD) is degenerate


def test_without_a_threshold_only_sparsity_is_judged() -> None:
    assert verdicts(0.0, 0.0, 10**6, None) == (Verdict.UNJUDGED,)
    assert verdicts(0.9, 0.0, 10**6, None) == (Verdict.SPARSE,)
    assert is_degenerate(0.9, 0.0, 10**6, None) is None


def test_low_entropy_is_a_share_of_the_largest() -> None:
    large = threshold_for((5, 5))
    share = 0.5 / math.log10(9)
    assert verdicts(0.0, share * math.log10(25) - 1e-9, 4096, large) == (Verdict.LOW_DIVERSITY,)
    assert verdicts(0.0, share * math.log10(25) + 1e-9, 4096, large) == (Verdict.HEALTHY,)


def test_other_bounds_count() -> None:
    strict = Bounds(sparse_share=0.01, low_entropy=0.9, random_margin=0.0)
    assert verdicts(0.01, 0.89, 4096, PUBLISHED_THRESHOLD, bounds=strict) == (
        Verdict.SPARSE,
        Verdict.LOW_DIVERSITY,
    )
    assert verdicts(0.0, 0.94, 4096, PUBLISHED_THRESHOLD, bounds=strict) == (Verdict.HEALTHY,)


@pytest.mark.parametrize(
    "bounds", [{"sparse_share": 0.0}, {"sparse_share": 1.1}, {"low_entropy": 2.0}, {"random_margin": -0.1}]
)
def test_bounds_that_make_no_sense_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(InputError, match="bounds: expected"):
        Bounds(**bounds)
