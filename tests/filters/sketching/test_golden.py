"""The authors' numbers of the same weights, by way of sketches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.filters import FilterBank
from compressor.filters.basis import Basis
from compressor.filters.quality import Comparison, Population
from compressor.filters.sketching import Sketches, SketchSetting, sketch_all
from compressor.filters.sketching.measured import quality_of_sketch

ONE_KERNEL, CONSTANT = "single_kernel_1x1", ("all_zero_8x4", "all_one_8x4")


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "filterdb_quality.npz") as file:
        return {name: file[name] for name in file.files}


def banks_of(golden: dict[str, np.ndarray], size: int = 3) -> list[FilterBank]:
    banks = [
        FilterBank(torch.from_numpy(golden[f"w__{name}"]), name) for name in golden["case_names"].tolist()
    ]
    return [bank for bank in banks if bank.kernel_size == (size, size)]


def sketched(golden: dict[str, np.ndarray], size: int = 3, **options: Comparison) -> Sketches:
    return sketch_all(banks_of(golden, size), SketchSetting(Basis.cosines((size, size)), **options))


@pytest.fixture(scope="module")
def sketches(golden: dict[str, np.ndarray]) -> Sketches:
    made = sketched(golden)
    assert len(made) == 17
    return made


def column(golden: dict[str, np.ndarray], table: str, columns: str, name: str) -> dict[str, float]:
    values = golden[table][:, golden[columns].tolist().index(name)].tolist()
    return dict(zip(golden["case_names"].tolist(), values, strict=True))


def test_sparsity_is_exact(golden: dict[str, np.ndarray], sketches: Sketches) -> None:
    expected = column(golden, "cvpr22w", "cvpr22w_columns", "sparsity_le_rule")
    for layer, sketch in sketches:
        assert sketch.sparsity() == golden[f"sparse_mask__{layer.layer_name}"].mean()
        assert sketch.sparsity(comparison=Comparison.AT_MOST) == expected[layer.layer_name]


@pytest.mark.parametrize(
    ("population", "name"),
    [(Population.RAW, "variance_entropy"), (Population.CLEAN, "variance_entropy_clean")],
)
@pytest.mark.parametrize("size", [3, 5])
def test_entropy_and_its_ratio(
    golden: dict[str, np.ndarray], population: Population, name: str, size: int
) -> None:
    expected = column(golden, "torchconvquality", "metric_names", name)
    ratios = column(golden, "torchconvquality", "metric_names", "variance_entropy_norm")
    seen = 0
    for layer, sketch in sketched(golden, size):
        value = expected[layer.layer_name]
        if np.isnan(value):  # one kernel, or a singular value of 0
            continue
        assert sketch.entropy(population) == pytest.approx(value, abs=2e-7), layer
        if size == 3:  # theirs are of 3 x 3 for all sizes
            measured = quality_of_sketch(sketch, layer.layer_name, kernel_size=(3, 3))
            assert measured.entropy_ratio == pytest.approx(ratios[layer.layer_name], abs=2e-7), layer
        seen += 1
    assert seen == {3: 15, 5: 1}[size]


def test_scaled_entropy_of_the_robustness_study(golden: dict[str, np.ndarray]) -> None:
    expected = column(golden, "cvpr22w", "cvpr22w_columns", "variance_entropy_scaled_clean")
    for layer, sketch in sketched(golden, comparison=Comparison.AT_MOST):
        found = sketch.entropy(Population.SCALED_CLEAN)
        if layer.layer_name in (*CONSTANT, ONE_KERNEL):  # no variance: NaN there
            assert found == 0
        else:
            assert found == pytest.approx(expected[layer.layer_name], abs=2e-7), layer
