"""Layers of random kernels, simulated: the least variance entropy that one sees in many of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compressor.errors import InputError

__all__ = ["least_random_entropy", "random_entropies"]

Values = NDArray[np.float64]

# Legend of shape suffixes: R draws, M degrees of freedom, K elements of a kernel.

_NUMBERS_AT_ONCE = 1 << 21  # 16 MiB


def random_entropies(n: int, elements: int, draws: int, generator: np.random.Generator) -> Values:
    """The variance entropy of `draws` layers of n kernels of K independent normal elements each [R].

    The kernels themselves are not drawn, only what their entropy depends on: the scatter about the mean of
    n rows is Wishart with n − 1 degrees of freedom, whose Cholesky factor has independent chi and normal
    entries (Bartlett). So a layer of a million kernels costs what one of ten does.

    *Source: M. S. Bartlett, 1933, "On the theory of statistical regression", Proc. R. Soc. Edinburgh 53.*

    >>> random_entropies(1000, 9, 3, np.random.default_rng(0)).round(2)
    array([0.95, 0.95, 0.95])
    """
    if min(n, elements) < 2 or draws < 1:
        raise InputError(
            f"random layers have two kernels or more of two elements or more, got {n} of {elements}, drawn "
            f"{draws} times; fewer have an entropy of 0"
        )
    at_once = max(1, _NUMBERS_AT_ONCE // elements**2)
    parts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    return np.concatenate([_entropies(n - 1, elements, part, generator) for part in parts])


def least_random_entropy(
    n: int, elements: int, *, draws: int = 1000, repeats: int = 1, generator: np.random.Generator
) -> float:
    """The least entropy of `draws` random layers, the mean of `repeats` such.

    >>> round(least_random_entropy(1000, 9, generator=np.random.default_rng(0)), 2)
    0.95
    """
    return float(
        np.mean([random_entropies(n, elements, draws, generator).min() for _ in range(max(1, repeats))])
    )


def _entropies(freedom: int, elements: int, draws: int, generator: np.random.Generator) -> Values:
    if freedom < elements:  # fewer rows than elements: the smaller of the two products has the same spectrum
        rows_RMK = generator.standard_normal((draws, freedom, elements))
        scatter = rows_RMK @ rows_RMK.transpose(0, 2, 1)
    else:
        factor_RKK = np.tril(generator.standard_normal((draws, elements, elements)), -1)
        diagonal = np.arange(elements)
        factor_RKK[:, diagonal, diagonal] = np.sqrt(
            generator.chisquare(freedom - diagonal, size=(draws, elements))
        )
        scatter = factor_RKK @ factor_RKK.transpose(0, 2, 1)
    variances = np.linalg.eigvalsh(scatter).clip(min=0)
    shares = variances / variances.sum(axis=1, keepdims=True)
    logs = np.log10(shares, where=shares > 0, out=np.zeros_like(shares))
    entropies: Values = -(shares * logs).sum(axis=1)
    return entropies
