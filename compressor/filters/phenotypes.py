"""What the cloud of a layer's kernels looks like along its first two components: a name for it."""

from __future__ import annotations

import math
from enum import Enum

from torch import Tensor

from compressor.errors import InputError

__all__ = ["Phenotype", "phenotype"]

# Legend of shape suffixes: N kernels.


class Phenotype(Enum):
    """The look of a scatter plot of the kernels' first two coefficients.

    `SUN`: round, densest in the middle. `SPIKES`: hot spots, few shapes. `SYMBOLS`: lopsided, of several
    heaps, or with edges. `POINT`: nearly all of it at the origin.

    *Source: P. Gavrikov, J. Keuper, CNN Filter DB, 2022, arXiv 2203.15331, for the names, given by eye.*
    """

    SUN = "sun"
    SPIKES = "spikes"
    SYMBOLS = "symbols"
    POINT = "point"


def phenotype(coefficients_N2: Tensor, *, sparsity: float, entropy: float) -> Phenotype:
    """The phenotype of kernels by their first two coefficients [N, 2], S and H of their layer; our rule.

    `POINT` where S > 0.5, or more than half of the points lie within 0.1 of the origin; else `SPIKES` where
    H < 0.5; else `SUN` where both coefficients are about normal, |skew| < 0.2 and an excess kurtosis of
    -0.75 to 0.5; else `SYMBOLS`. The kurtosis may be low, as normal kernels that are divided by their largest
    weight have lost their tails: -0.73 along a single pixel. To all bounds twice the standard error of a
    sample of N is added, sqrt(6 / N) and sqrt(24 / N): without it many small layers of random kernels would
    be symbols.

    It names a picture, and says nothing about how good a layer is. Raises InputError where there are no two
    columns, or no rows.

    >>> import torch
    >>> round_cloud = torch.randn(4096, 2, generator=torch.manual_seed(0))
    >>> phenotype(round_cloud, sparsity=0.0, entropy=0.9)
    <Phenotype.SUN: 'sun'>
    >>> phenotype(0.01 * round_cloud, sparsity=0.0, entropy=0.9)
    <Phenotype.POINT: 'point'>
    """
    if coefficients_N2.ndim != 2 or coefficients_N2.shape[1] != 2 or not len(coefficients_N2):
        raise InputError(
            f"a phenotype takes coefficients [N, 2] of kernels, got {list(coefficients_N2.shape)}"
        )
    points = coefficients_N2.detach().double()
    if sparsity > 0.5 or float((points.norm(dim=1) < 0.1).double().mean()) > 0.5:
        return Phenotype.POINT
    if entropy < 0.5:
        return Phenotype.SPIKES
    centred = points - points.mean(dim=0)
    variances = centred.square().mean(dim=0)
    if float(variances.min()) == 0:
        return Phenotype.SYMBOLS
    skew = float((centred.pow(3).mean(dim=0) / variances.pow(1.5)).abs().max())
    kurtosis = centred.pow(4).mean(dim=0) / variances.square() - 3
    error = 2 * math.sqrt(24 / len(points))
    is_even = skew < 0.2 + 2 * math.sqrt(6 / len(points))
    is_normal = is_even and float(kurtosis.max()) < 0.5 + error and float(kurtosis.min()) > -0.75 - error
    return Phenotype.SUN if is_normal else Phenotype.SYMBOLS
