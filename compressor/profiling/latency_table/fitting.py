"""Non-negative least squares with a prior, for a handful of unknowns."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

__all__ = ["fit", "misfit"]

Floats = npt.NDArray[np.float64]


def fit(
    columns: Floats, times: Floats, prior: Floats, *, weights: Floats | None = None, trust: float = 1e-4
) -> Floats:
    """Coefficients >= 0 [n] so that columns [m, n] @ coefficients are close to `times` [m], relatively.

    Minimised is the mean of weights * (error / time)² + `trust` * Σ (share of the time that a coefficient
    accounts for, less the same of its `prior`)². Exact: every choice of the coefficients that are not zero
    is tried, so that n must be small.

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
    best, found = 0.0, np.zeros(len(scale))
    for chosen in product((False, True), repeat=len(scale)):
        some = np.array(chosen)
        if not some.any():
            continue
        values = np.linalg.solve(gram[np.ix_(some, some)], aim[some])
        cost = float(-aim[some] @ values)  # of the minimum, but for a constant
        if (values >= 0).all() and cost < best:
            best, found = cost, np.zeros(len(scale))
            found[some] = values
    return np.asarray(found / scale)


def misfit(columns: Floats, times: Floats, found: Floats) -> float:
    """The mean squared relative error of a fit."""
    return float(np.mean(np.square(columns @ found / times - 1)))
