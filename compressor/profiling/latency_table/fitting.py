"""Non-negative least squares with a prior, for a handful of unknowns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["fit", "left_out"]

Floats = npt.NDArray[np.float64]
_SWEEPS = 2000


def fit(
    columns: Floats, times: Floats, prior: Floats, *, weights: Floats | None = None, trust: float = 1e-3
) -> Floats:
    """Coefficients >= 0 [n] so that columns [m, n] @ coefficients are close to `times` [m], relatively.

    Minimised is the mean of weights * (error / time)² + `trust` * Σ (share of the time that a coefficient
    accounts for, less the same of its `prior`)², by coordinate descent.

    >>> columns = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    >>> fit(columns, columns @ [3.0, 0.5], np.array([1.0, 0.0]), trust=1e-9).round(3).tolist()
    [3.0, 0.5]
    """
    relative = columns / times[:, None]
    scale = np.maximum(relative.mean(0), 1e-12)
    relative = relative / scale
    weight = np.ones(len(times)) if weights is None else weights
    weight = weight / weight.sum()
    gram = (relative * weight[:, None]).T @ relative + trust * np.eye(len(scale))
    aim = relative.T @ weight + trust * prior * scale
    found = np.maximum(prior * scale, 0.0)
    for _ in range(_SWEEPS):
        before = found.copy()
        for j in range(len(found)):
            found[j] = max(0.0, found[j] + (aim[j] - gram[j] @ found) / gram[j, j])
        if np.abs(found - before).max() < 1e-12:
            break
    return np.asarray(found / scale)


def left_out(
    columns: Floats, times: Floats, prior: Floats, *, tested: Sequence[int], weights: Floats | None = None
) -> Floats:
    """For each of the `tested` rows the relative error of its prediction by a fit to all others."""
    errors = []
    for index in tested:
        others = np.arange(len(times)) != index
        weight = None if weights is None else weights[others]
        found = fit(columns[others], times[others], prior, weights=weight)
        errors.append(float(columns[index] @ found / times[index] - 1))
    return np.array(errors)
