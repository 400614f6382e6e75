from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compressor.errors import InputError
from compressor.filters.quality import norms


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_norms_are_exact_sums_at_any_scale(scale: float) -> None:
    weight = torch.randn(7, 5, 3, 3) * scale
    exact = weight.double().flatten().tolist()
    measured = norms(weight)
    assert measured.l1 == pytest.approx(math.fsum(map(abs, exact)), rel=1e-14)
    assert measured.l2 == pytest.approx(
        math.sqrt(math.fsum((w / scale) ** 2 for w in exact)) * scale, rel=1e-13
    )


def test_the_standardised_norms_are_those_of_numpys_standardised_weights() -> None:
    weight = torch.randn(6, 4, 5, dtype=torch.float64) * 3 + 1
    plain = weight.numpy()
    standard = (plain - plain.mean()) / plain.std(ddof=1)
    measured = norms(weight)
    assert measured.l1_standardised == pytest.approx(np.abs(standard).sum())
    assert measured.l2_standardised == pytest.approx(np.linalg.norm(standard))
    assert measured.l2_standardised == pytest.approx(math.sqrt(weight.numel() - 1))


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_weight_without_variance_has_no_standardised_norms(value: float) -> None:
    measured = norms(torch.full((3, 3, 3, 3), value))
    assert measured.l1_standardised is None and measured.l2_standardised is None
    assert measured.l1 == pytest.approx(81 * value)


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        norms(torch.full((2, 2, 3, 3), math.nan))
