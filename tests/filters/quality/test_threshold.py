from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from compressor.errors import InputError
from compressor.filters.quality import (
    PUBLISHED_THRESHOLD,
    entropy_ratio,
    fit_random_threshold,
    least_random_entropy,
    random_entropies,
    random_threshold,
    threshold_for,
    variance_entropy,
)
from compressor.filters.quality.threshold_fit import _logistic_fit

COMMITTED = (2, 3, 4, 5, 7, 9, 11, 15, 16, 25, 27, 49, 81, 121, 125)


@pytest.mark.parametrize(("n", "elements"), [(6, 9), (40, 4), (200, 25)])
def test_simulated_entropies_are_those_of_drawn_kernels(n: int, elements: int) -> None:
    """Kernels drawn and measured one layer after the other against the short cut: the same distribution."""
    drawn = [variance_entropy(torch.randn(n, elements, dtype=torch.float64)) for _ in range(400)]
    simulated = random_entropies(n, elements, 2000, np.random.default_rng(1))
    assert scipy.stats.ks_2samp(drawn, simulated).pvalue > 1e-3
    shifted = simulated + 0.2 * simulated.std()
    assert scipy.stats.ks_2samp(drawn, shifted).pvalue < 1e-3  # the test can tell


@pytest.mark.parametrize("n", [8, 16])
def test_the_published_curve_goes_through_the_least_of_a_thousand(n: int) -> None:
    least = least_random_entropy(n, 9, draws=1000, repeats=10, generator=np.random.default_rng(0))
    assert PUBLISHED_THRESHOLD(n) == pytest.approx(least, abs=0.02)


@pytest.mark.parametrize("elements", [3, 9, 25])
def test_a_fit_with_another_seed_gives_the_committed_curve(elements: int) -> None:
    committed = threshold_for((elements,), published=False)
    again = fit_random_threshold(elements, repeats=3, seed=1)
    assert committed is not None and again.least_kernels == committed.least_kernels
    for n in (committed.least_kernels * 2**octave for octave in range(12)):
        close = 0.02 if n < 64 else 0.005  # the least of 1000 scatters by 0.01 for few kernels
        assert again(n) == pytest.approx(committed(n), abs=close), n


def test_the_committed_constants_are_what_their_line_says() -> None:
    committed, again = threshold_for((4,)), fit_random_threshold(4, repeats=20)
    assert committed is not None and committed.fitted == again.fitted
    for n in (16, 100, 10_000):
        assert again(n) == pytest.approx(committed(n), abs=1e-7)


@pytest.mark.parametrize("elements", COMMITTED)
def test_random_layers_lie_above_the_curve_and_close_to_it(elements: int) -> None:
    threshold = threshold_for((elements,), published=False)
    assert threshold is not None
    generator = np.random.default_rng(5)
    for n in (threshold.least_kernels * 4, 16 * elements, 1024 * elements):
        entropies = random_entropies(n, elements, 200, generator)
        assert (entropies > threshold(n) - 0.02).all()  # the margin of the verdicts
        if n >= 16 * elements:
            assert (entropies > threshold(n) - 5e-4).mean() >= 0.95  # three constants are no closer
        # Exponential tails for two elements, and the residuals of a curve of four constants.
        assert entropies.mean() - threshold(n) <= 8 * entropies.std() + 3e-3
    # A curve that ended above the largest entropy would call nothing random.
    assert threshold(1 << 60) == pytest.approx(math.log10(elements), abs=1e-9)


def test_the_fit_is_the_least_squares_of_scipy() -> None:
    x, largest = np.arange(3.0, 16.0), math.log10(9)

    def curve(x: np.ndarray, height: float, middle: float, slope: float) -> np.ndarray:
        return largest - height + height / (1 + np.exp(-slope * (x - middle)))

    y = curve(x, 1.2, 2.3, 0.8) - 1e-4 * (1 + np.sin(5 * x))
    expected, _ = scipy.optimize.curve_fit(curve, x, y, p0=(1.2, 2.3, 0.8), sigma=np.sqrt(largest - y))
    *found, base = _logistic_fit(x, y, 9)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[0] + base == pytest.approx(largest, abs=1e-12)


def test_only_the_number_of_elements_counts() -> None:
    assert random_threshold(100, (3, 3)) == random_threshold(100, (9,)) == PUBLISHED_THRESHOLD(100)
    assert random_threshold(100, (3, 3, 3)) == random_threshold(100, (27,))


def test_sizes_without_constants_are_fitted_once() -> None:
    threshold = threshold_for((2, 3))
    assert threshold is not None and threshold is threshold_for((6,))
    assert 0.6 * math.log10(6) < threshold(32) < math.log10(6)


def test_ratios_where_there_is_none() -> None:
    for n in (0, 1, 2):
        assert entropy_ratio(0.3, n, PUBLISHED_THRESHOLD) is None
    assert entropy_ratio(0.3, 4, PUBLISHED_THRESHOLD) == pytest.approx(0.3 / 0.23568113, rel=1e-6)
    assert not PUBLISHED_THRESHOLD.judges(7) and PUBLISHED_THRESHOLD.judges(8)


def test_sizes_without_a_threshold_are_named() -> None:
    assert threshold_for((1, 1)) is None and threshold_for((16, 16)) is None
    with pytest.raises(InputError, match=r"16 x 16: fit_random_threshold\(256"):
        random_threshold(100, (16, 16))
    with pytest.raises(InputError, match="entropy of 0, random or not"):
        random_threshold(100, (1, 1))
    with pytest.raises(InputError, match="one direction"):
        fit_random_threshold(1)
    with pytest.raises(InputError, match="sizes of 1 and more"):
        threshold_for((3, 0))
    with pytest.raises(InputError, match="one kernel or more"):
        random_threshold(0)
    with pytest.raises(InputError, match="two kernels or more"):
        random_entropies(1, 9, 5, np.random.default_rng(0))
