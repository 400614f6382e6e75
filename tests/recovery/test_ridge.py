"""Ridge regression against scikit-learn, and where its equations cannot be solved."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from compressor.errors import RecoveryError
from compressor.observing import NormalEquations, Sums
from compressor.recovery.ridge import ridge


def equations(x: torch.Tensor, y: torch.Tensor, *, intercept: bool) -> NormalEquations:
    sums = Sums()
    for rows in torch.arange(x.shape[1]).split(7):
        sums.add(x[:, rows], y[:, rows])
    return sums.equations(intercept=intercept)


@pytest.mark.parametrize("intercept", [True, False])
def test_it_is_the_ridge_regression_of_scikit_learn(intercept: bool) -> None:
    x, y = torch.randn(2, 50, 6) + 1, torch.randn(2, 50, 3)
    of = equations(x, y, intercept=intercept)
    found = ridge(of, 0.1, around_GKO=torch.zeros(2, 6, 3, dtype=torch.float64), where="here")
    for group in range(2):
        a, b = x[group].double().numpy(), y[group].double().numpy()
        centred = a - a.mean(0) if intercept else a
        alpha = 0.1 * (centred**2).mean() * len(a)
        theirs = Ridge(alpha=alpha, fit_intercept=intercept).fit(a, b).coef_.T
        np.testing.assert_allclose(found[group].numpy(), theirs, rtol=1e-9, atol=1e-12)


def test_unknowns_that_no_data_speak_of_stay() -> None:
    x = torch.randn(1, 40, 4)
    x[..., 2] = 0
    start = torch.randn(1, 4, 2, dtype=torch.float64)
    found = ridge(equations(x, torch.randn(1, 40, 2), intercept=False), 1e-3, around_GKO=start, where="here")
    assert torch.equal(found[0, 2], start[0, 2])
    assert not torch.allclose(found[0, 0], start[0, 0])


def test_a_ridge_lost_in_rounding_is_raised_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(1, 30, 1).expand(1, 30, 5).clone()
    with caplog.at_level(logging.WARNING):
        found = ridge(
            equations(x, x[..., :1] * 5, intercept=False),
            1e-18,
            around_GKO=torch.zeros(1, 5, 1, dtype=torch.float64),
            where="layer 'a'",
        )
    assert "layer 'a'" in caplog.text
    torch.testing.assert_close(found.sum().item(), 5.0, rtol=1e-3, atol=0)


def test_equations_without_a_solution_raise() -> None:
    broken = NormalEquations(
        -torch.eye(3, dtype=torch.float64)[None],
        *(torch.ones(1, 3, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)),
        *(torch.zeros(1, 3, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)),
        rows=3,
    )
    with pytest.raises(RecoveryError, match="'a': its normal equations cannot be solved"):
        ridge(broken, 1e-4, around_GKO=torch.zeros(1, 3, 1, dtype=torch.float64), where="layer 'a'")
