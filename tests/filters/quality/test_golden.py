"""The measures against the numbers that the authors' code gave for the same weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.filters import kernel_matrix
from compressor.filters.quality import (
    PUBLISHED_THRESHOLD,
    Comparison,
    Population,
    entropy_ratio,
    norms,
    orthogonality,
    published_orthogonality,
    sparse_kernels,
    sparsity,
    variance_entropy,
)

CONSTANT = ("all_zero_8x4", "all_one_8x4")
ONE_KERNEL = "single_kernel_1x1"
ZERO_FILTERS = ("pruned_zero_rows_40x20", "all_zero_8x4", ONE_KERNEL)


@dataclass(frozen=True)
class Case:
    name: str
    weight: Tensor
    sparse: np.ndarray
    torchconvquality: dict[str, float]
    notebook: dict[str, float]
    robust: dict[str, float]

    @property
    def kernels(self) -> Tensor:
        return kernel_matrix(self.weight)


@pytest.fixture(scope="module")
def cases(shared: Path) -> list[Case]:
    with np.load(shared / "golden" / "filterdb_quality.npz") as golden:
        names = golden["case_names"].tolist()
        tables = [
            [dict(zip(golden[columns].tolist(), row.tolist(), strict=True)) for row in golden[table]]
            for table, columns in (
                ("torchconvquality", "metric_names"),
                ("main_notebook", "notebook_columns"),
                ("cvpr22w", "cvpr22w_columns"),
            )
        ]
        return [
            Case(name, torch.from_numpy(golden[f"w__{name}"]), golden[f"sparse_mask__{name}"], *rows)
            for name, *rows in zip(names, *tables, strict=True)
        ]


def test_which_kernels_are_sparse(cases: list[Case]) -> None:
    for case in cases:
        assert np.array_equal(sparse_kernels(case.kernels).numpy(), case.sparse), case.name


def test_sparsity_of_all_three_sources(cases: list[Case]) -> None:
    for case in cases:
        # Exact but for the float32 division of the original.
        assert sparsity(case.kernels) == pytest.approx(case.torchconvquality["sparsity"], abs=3e-8), case.name
        at_most = sparsity(case.kernels, comparison=Comparison.AT_MOST)
        assert at_most == case.robust["sparsity_le_rule"], case.name
        if case.name != "all_zero_8x4":  # S = 0 in the notebook; 1 here and in the two others
            assert sparsity(case.kernels) == case.notebook["sparsity"], case.name


@pytest.mark.parametrize("population", [Population.RAW, Population.CLEAN])
def test_entropy_and_its_ratio_of_torchconvquality(cases: list[Case], population: Population) -> None:
    column = "variance_entropy" + ("_clean" if population is Population.CLEAN else "")
    seen = 0
    for case in cases:
        entropy = variance_entropy(case.kernels, population=population)
        kernels = population.of(case.kernels)
        golden = case.torchconvquality[column]
        if math.isnan(golden):  # one kernel, or a singular value of 0
            assert math.isfinite(entropy), case.name
            continue
        assert entropy == pytest.approx(golden, abs=2e-7), case.name
        ratio = entropy_ratio(entropy, len(kernels), PUBLISHED_THRESHOLD)
        if len(kernels):
            assert ratio == pytest.approx(case.torchconvquality[column + "_norm"], abs=2e-7), case.name
        else:
            assert ratio is None
        seen += 1
    assert seen == 16


def test_entropy_of_the_notebooks(cases: list[Case]) -> None:
    for case in cases:
        raw = variance_entropy(case.kernels)
        scaled = variance_entropy(
            case.kernels, population=Population.SCALED_CLEAN, comparison=Comparison.AT_MOST
        )
        if case.name in CONSTANT or case.name == ONE_KERNEL:  # NaN there: no variance
            assert raw == scaled == 0
            continue
        assert raw == pytest.approx(case.notebook["variance_entropy"], abs=2e-7), case.name
        assert raw == pytest.approx(case.robust["variance_entropy"], abs=2e-7), case.name
        assert scaled == pytest.approx(case.robust["variance_entropy_scaled_clean"], abs=2e-7), case.name


def test_orthogonality_as_published_and_ours(cases: list[Case]) -> None:
    for case in cases:
        published, ours = published_orthogonality(case.weight), orthogonality(case.weight)
        if case.name == ONE_KERNEL:  # -inf there
            assert published is None and ours is None
            continue
        assert published == pytest.approx(case.torchconvquality["orthogonality"], abs=1e-7), case.name
        # the notebook divides in float32 without care: 4e-7 below zero for a layer of ones
        assert published == pytest.approx(case.robust["orthogonality"], abs=5e-7), case.name
        if case.name not in ZERO_FILTERS:
            assert ours == pytest.approx(published, abs=1e-14), case.name


def test_norms(cases: list[Case]) -> None:
    """Their L1 is a sum in float32, up to 2e-5 off: test_norms.py has an exact oracle."""
    for case in cases:
        measured, golden = norms(case.weight), case.torchconvquality
        assert measured.l1 == pytest.approx(golden["norm_l1"], rel=5e-5), case.name
        assert measured.l2 == pytest.approx(golden["norm_l2"], rel=1e-5), case.name
        if case.name in CONSTANT:  # NaN there
            assert measured.l1_standardised is None and measured.l2_standardised is None
        else:
            assert measured.l1_standardised == pytest.approx(golden["norm_l1_norm"], rel=5e-5), case.name
            assert measured.l2_standardised == pytest.approx(golden["norm_l2_norm"], rel=1e-5), case.name


def test_the_published_threshold(shared: Path) -> None:
    with np.load(shared / "golden" / "filterdb_quality.npz") as golden:
        for n, expected in zip(golden["TH_n"].tolist(), golden["TH"].tolist(), strict=True):
            assert PUBLISHED_THRESHOLD(int(n)) == pytest.approx(expected, abs=1e-12)
