from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.errors import InputError
from compressor.filters import FilterBank, drift
from compressor.filters.quality import (
    EPSILONS,
    Comparison,
    Population,
    Quality,
    Verdict,
    fit_random_threshold,
    orthogonality,
    quality,
    random_threshold,
    sparsities,
    variance_entropy,
)


@pytest.fixture
def weight() -> torch.Tensor:
    weight = torch.randn(24, 10, 3, 3) * torch.logspace(0, -1.9, 24)[:, None, None, None]
    weight[:, 3] = 0
    weight[5] = weight[0] * 1e-6
    weight[7] = -weight[2]
    return weight


def test_every_measure_is_that_of_its_own_function(weight: torch.Tensor) -> None:
    bank = FilterBank(weight, "layer")
    measured = quality(bank, epsilon=0.05, comparison=Comparison.AT_MOST)
    for population, found in {
        Population.RAW: measured.entropy,
        Population.CLEAN: measured.entropy_clean,
        Population.SCALED_CLEAN: measured.entropy_scaled_clean,
    }.items():
        expected = variance_entropy(
            bank.kernels, population=population, epsilon=0.05, comparison=Comparison.AT_MOST
        )
        assert found == expected, population
    assert measured.sparsities == sparsities(bank.kernels, comparison=Comparison.AT_MOST)
    assert measured.sparsity == measured.sparsities[0.05] == 1 - measured.clean_count / 240
    assert measured.random_threshold == random_threshold(240)
    assert measured.entropy_ratio == pytest.approx(measured.entropy / random_threshold(240))
    clean = measured.entropy_clean / random_threshold(measured.clean_count)
    assert measured.entropy_ratio_clean == pytest.approx(clean)
    assert measured.dead_filters[0] == 5 and measured.dead_channels == (3,)
    assert measured.duplicates.pairs[0][:2] in {(0, 5), (2, 7)} and measured.duplicates.count == 2
    assert measured.effective_shapes == 10**measured.entropy
    assert measured.orthogonality == orthogonality(weight)


def test_a_row_for_tables_holds_plain_values(weight: torch.Tensor) -> None:
    row = quality(weight).as_row()
    assert all(isinstance(value, int | float | str | None) for value in row.values())
    assert row["dead_channels"] == 1 and row["kernel_size"] == "3x3" and row["degenerate"] in (True, False)
    assert {f"sparsity_{epsilon:g}" for epsilon in EPSILONS} <= set(row)


@pytest.mark.parametrize("size", [(1,), (7,), (1, 1), (1, 3), (5, 5), (3, 3, 3), (16, 16)])
def test_kernels_of_any_size_and_dimension(size: tuple[int, ...]) -> None:
    measured = quality(torch.randn(32, 16, *size))
    judged = math.prod(size) not in (1, 256)
    assert measured.verdicts == ((Verdict.RANDOM,) if judged else (Verdict.UNJUDGED,))
    assert (measured.entropy_ratio is not None) is (measured.degenerate is not None) is judged
    assert str(measured) and measured.kernel_size == size


def test_a_threshold_of_ones_own_for_large_kernels() -> None:
    threshold = fit_random_threshold(70, draws=50, repeats=1)
    weight = torch.randn(40, 20, 7, 10)
    assert quality(weight).verdict is Verdict.UNJUDGED
    assert quality(weight, threshold=threshold).verdict is Verdict.RANDOM
    with pytest.raises(InputError, match="for kernels of 70 elements, these have 9"):
        quality(torch.randn(2, 2, 3, 3), threshold=threshold)


@pytest.mark.parametrize(
    ("weight", "verdict"),
    [
        (torch.zeros(8, 4, 3, 3), Verdict.SPARSE),
        (torch.ones(8, 4, 3, 3), Verdict.LOW_DIVERSITY),
        (torch.randn(1, 1, 3, 3), Verdict.UNJUDGED),
    ],
)
def test_edge_cases_have_no_nan(weight: torch.Tensor, verdict: Verdict) -> None:
    measured = quality(weight)
    assert measured.verdict is verdict
    assert not any(isinstance(value, float) and math.isnan(value) for value in measured.as_row().values())
    assert str(measured) and repr(measured)


def test_a_depthwise_layer_has_channels_of_its_groups() -> None:
    weight = torch.randn(16, 1, 3, 3)
    weight[4] = 0
    measured = quality(FilterBank(weight, "depthwise", groups=16))
    assert measured.channels == 16 and measured.dead_filters == measured.dead_channels == (4,)
    assert measured.duplicates.count == 0


def test_bad_weights_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="weight"):
        quality(torch.randn(2, 2, 3, 3) * math.nan)
    with pytest.raises(InputError, match="empty"):
        quality(torch.empty(0, 2, 3, 3))


def test_the_golden_layers_are_judged_as_their_making_says(shared: Path) -> None:
    expected = {
        "normal_64x32": {Verdict.RANDOM},
        "lowrank2_64x16": {Verdict.LOW_DIVERSITY},
        "one_pattern_32x32": {Verdict.LOW_DIVERSITY},
        "sparse35_48x24": {Verdict.SPARSE, Verdict.RANDOM},
        "decay_spectrum_128x64": {Verdict.HEALTHY},
        "kernel5x5_16x8": {Verdict.RANDOM},
        "threshold_boundary_4x2": {Verdict.SPARSE, Verdict.LOW_DIVERSITY},
    }
    with np.load(shared / "golden" / "filterdb_quality.npz") as golden:
        found: dict[str, Quality] = {
            name: quality(torch.from_numpy(golden[f"w__{name}"])) for name in golden["case_names"].tolist()
        }
    assert {name: set(found[name].verdicts) for name in expected} == expected
    assert found["pruned_zero_rows_40x20"].sparsity == len(found["pruned_zero_rows_40x20"].dead_filters) / 40
    assert found["negated_pairs_16x8"].duplicates.count == 8


def test_a_bare_tensor_is_called_the_weight() -> None:
    spoilt = torch.ones(2, 1, 3, 3)
    spoilt[1, 0, 2, 2] = torch.nan
    with pytest.raises(InputError, match=r"^the weight holds 1 value that is NaN or infinite, first at \[1"):
        quality(spoilt)
    with pytest.raises(InputError, match=r"^the weight of the second kernels holds 1 value"):
        drift(torch.randn(2, 1, 3, 3), spoilt)
