from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compressor.errors import InputError
from compressor.evaluation import (
    Classification,
    Predictions,
    classification,
    over_seeds,
    t_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 7), (7, 7), (450, 1000), (1, 1)])
def test_wilson_bounds_solve_the_score_equation(k: int, n: int) -> None:
    # |k/n − p| = z √(p(1 − p)/n) at both bounds, z the 97.5 % point of the normal distribution
    z = math.sqrt(2) * float(torch.erfinv(torch.tensor(0.95, dtype=torch.float64)))
    interval = wilson_interval(k, n)
    for p in (interval.low, interval.high):
        assert abs(k / n - p) == pytest.approx(z * math.sqrt(max(0.0, p * (1 - p) / n)), abs=1e-7)
    assert interval.value == k / n


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_a_share_of_nothing_is_refused(k: int, n: int) -> None:
    with pytest.raises(InputError, match=f"got {k} of {n}"):
        wilson_interval(k, n)


@pytest.mark.parametrize(
    ("n", "quantile"),
    [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262)],  # of the printed tables of t
)
def test_the_t_interval_uses_the_table(n: int, quantile: float) -> None:
    values = np.random.default_rng(n).normal(size=n)
    interval = t_interval(values.tolist())
    assert interval.value == pytest.approx(values.mean())
    half = quantile * values.std(ddof=1) / math.sqrt(n)
    assert interval.high - interval.value == pytest.approx(half, rel=1e-3)
    assert interval.value - interval.low == pytest.approx(half, rel=1e-3)


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan], [0.5, math.inf]])
def test_one_run_has_no_interval(values: list[float]) -> None:
    with pytest.raises(InputError, match="two or more finite values"):
        t_interval(values)


TRUE = np.repeat([0, 1, 2], [6, 4, 2])


def run(seed: int, true: np.ndarray = TRUE) -> Classification:
    rng = np.random.default_rng(seed)
    predicted = np.where(rng.random(len(true)) < 0.7, true, rng.integers(0, 3, len(true)))
    return classification(Predictions(true, predicted, ("a", "b", "c")))


def test_means_over_seeds_are_those_of_the_runs() -> None:
    runs = [run(seed) for seed in range(4)]
    found = over_seeds(runs)
    assert found.seeds == 4
    assert found.balanced_accuracy == t_interval([r.balanced_accuracy.value for r in runs])
    assert found.macro_f1 == t_interval([r.macro_f1.value for r in runs])
    lowest = [min(rate.value for rate in r.recall if rate is not None) for r in runs]
    assert found.worst_recall.value == pytest.approx(np.mean(lowest))
    second = [r.recall[1].value for r in runs if r.recall[1] is not None]
    assert found.recall[1] == t_interval(second)
    assert "t intervals over 4 seeds" in found.summary()


def test_a_class_that_is_absent_stays_so() -> None:
    true = np.repeat([0, 1], [6, 4])
    with pytest.warns(UserWarning, match="no sample of class 'c'"):
        found = over_seeds([run(0, true), run(1, true)])
    assert found.recall[2] is None and found.summary().splitlines()[-2].split()[:2] == ["c", "-"]


def test_runs_on_other_sets_and_one_run_alone_are_refused() -> None:
    with pytest.raises(InputError, match=r"run 1 is on 6 a, 3 b, 3 c, run 0 on 6 a, 4 b, 2 c"):
        over_seeds([run(0), run(0, np.repeat([0, 1, 2], [6, 3, 3]))])
    with pytest.raises(InputError, match="two or more runs, got 1"):
        over_seeds([run(0)])
