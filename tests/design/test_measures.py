"""Effective ranks of spectra: closed forms, order among the measures, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.design import EnergyRank, ParticipationRatio, SpectralMeasure, StableRank
from compressor.errors import InputError

MEASURES = (ParticipationRatio(), StableRank(), EnergyRank(0.95))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("n", [1, 7])
def test_n_equal_values_are_n_directions(measure: SpectralMeasure, n: int) -> None:
    spectrum = torch.cat([torch.full((n,), 0.3), torch.zeros(4)])
    assert measure(spectrum) == pytest.approx(n, rel=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_no_value_above_zero_is_no_direction(measure: SpectralMeasure) -> None:
    assert measure(torch.zeros(5)) == 0
    assert measure(torch.zeros(0)) == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_scale_does_not_count(measure: SpectralMeasure) -> None:
    spectrum = torch.tensor([5.0, 3.0, 0.5], dtype=torch.float64)
    assert measure(spectrum * 1e-200) == pytest.approx(measure(spectrum))
    assert measure(spectrum * 1e200) == pytest.approx(measure(spectrum))


def test_a_geometric_spectrum_in_closed_form() -> None:
    q, n = 0.5, 60
    spectrum = q ** torch.arange(n, dtype=torch.float64)
    # Sums of q^i and q^2i: (1 / (1 - q))^2 * (1 - q^2) = (1 + q) / (1 - q), and 1 / (1 - q).
    assert ParticipationRatio()(spectrum) == pytest.approx(3.0)
    assert StableRank()(spectrum) == pytest.approx(2.0)
    # 1 - q^k >= 0.95 from k = 5 on.
    assert EnergyRank(0.95)(spectrum) == 5


def test_the_stable_rank_is_the_least_and_the_ratio_below_its_square() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        spectrum = torch.rand(20, generator=generator) ** 4
        stable, ratio = StableRank()(spectrum), ParticipationRatio()(spectrum)
        assert 1 <= stable <= ratio + 1e-9 <= min(stable**2, 20) + 1e-6


def test_the_energy_rank_is_that_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    for fraction in (0.5, 0.9, 0.99, 1.0):
        values = sorted(torch.rand(30, generator=generator).double().tolist(), reverse=True)
        held, count = 0.0, 0
        while held < fraction * sum(values) - 1e-9:
            held, count = held + values[count], count + 1
        assert EnergyRank(fraction)(torch.tensor(values, dtype=torch.float64)) == count


@pytest.mark.parametrize("spectrum", [torch.tensor([1.0, -1.0]), torch.tensor([float("nan")])])
@pytest.mark.parametrize("measure", MEASURES)
def test_what_is_no_spectrum_is_refused(measure: SpectralMeasure, spectrum: Tensor) -> None:
    with pytest.raises(InputError, match="finite values that are not negative"):
        measure(spectrum)


@pytest.mark.parametrize("shape", [(2, 2), ()])
def test_a_matrix_is_no_spectrum(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"a floating vector \[n\]"):
        ParticipationRatio()(torch.ones(shape))


@pytest.mark.parametrize("fraction", [0, -1, 1.5, float("nan"), True])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="the share of the energy"):
        EnergyRank(fraction)
