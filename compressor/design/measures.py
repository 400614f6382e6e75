"""How many directions a spectrum has: measures of effective rank, as pure functions of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["EnergyRank", "EntropyRank", "ParticipationRatio", "SpectralMeasure", "StableRank"]


class SpectralMeasure(Protocol):
    """Any function from a spectrum to a number of directions is a measure.

    The spectrum [n] holds squared singular values (or the eigenvalues of a covariance), descending, at
    least 0. What comes back lies between 1 and the number of values above 0, and is 0 where none is.
    """

    def __call__(self, spectrum: Tensor, /) -> float:
        """The number of directions."""


@dataclass(frozen=True)
class ParticipationRatio:
    """(Σ λ)² / Σ λ²: n for n equal values λ, near 1 where one outweighs the others.

    *Source: the participation ratio of physics; as a dimension of activity P. Gao et al., 2017, "A theory
    of multineuronal dimensionality, dynamics and measurement", bioRxiv 214262.*

    >>> ParticipationRatio()(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    3.0
    """

    def __call__(self, spectrum: Tensor, /) -> float:
        """The participation ratio of a spectrum [n]."""
        parts = _shares(spectrum)
        return 1 / float(parts.square().sum()) if len(parts) else 0.0


@dataclass(frozen=True)
class StableRank:
    """Σ λ / max λ, squared Frobenius over squared spectral norm; at most the participation ratio.

    *Source: M. Rudelson, R. Vershynin, 2007, "Sampling from large matrices", arXiv math/0503442.*

    >>> StableRank()(torch.tensor([4.0, 2.0, 2.0]))
    2.0
    """

    def __call__(self, spectrum: Tensor, /) -> float:
        """The stable rank of a spectrum [n]."""
        parts = _shares(spectrum)
        return 1 / float(parts.max()) if len(parts) else 0.0


@dataclass(frozen=True)
class EnergyRank:
    """The fewest directions that hold `fraction` of the sum of a spectrum.

    >>> EnergyRank(0.9)(torch.tensor([8.0, 1.0, 0.5, 0.5]))
    2.0
    """

    fraction: float = 0.95

    def __post_init__(self) -> None:
        if isinstance(self.fraction, bool) or not 0 < self.fraction <= 1:
            raise InputError(
                f"EnergyRank(fraction) = {self.fraction!r}: the share of the energy to hold, above 0 and at "
                "most 1, is expected"
            )

    def __call__(self, spectrum: Tensor, /) -> float:
        """The number of the largest values of a spectrum [n] that suffices."""
        parts = _shares(spectrum)
        if not len(parts):
            return 0.0
        held = parts.sort(descending=True).values.cumsum(0)
        # Rounding of the sum must not ask for a direction more, hence a few units of the last place.
        return float(int((held < self.fraction - 1e-12).sum()) + 1)


@dataclass(frozen=True)
class EntropyRank:
    """exp(−Σ p ln p) of the shares p of a spectrum: n for n equal values; 10^H of a variance entropy H.

    *Source: O. Roy, M. Vetterli, 2007, "The effective rank: a measure of effective dimensionality", EUSIPCO.*
    Departure: there p are shares of singular values, here of their squares, as in all measures here.

    >>> round(EntropyRank()(torch.tensor([2.0, 2.0, 0.0])), 6)
    2.0
    """

    def __call__(self, spectrum: Tensor, /) -> float:
        """The exponential of the entropy of a spectrum [n]."""
        parts = _shares(spectrum)
        return math.exp(-float(torch.special.xlogy(parts, parts).sum())) if len(parts) else 0.0


def _shares(spectrum: Tensor) -> Tensor:
    """The values above 0 over their sum, in float64."""
    if spectrum.ndim != 1 or not spectrum.is_floating_point():
        raise InputError(f"a spectrum is a floating vector [n], got {spectrum.dtype} {list(spectrum.shape)}")
    if not bool(torch.isfinite(spectrum).all()) or bool((spectrum < 0).any()):
        raise InputError("a spectrum holds finite values that are not negative: squared singular values")
    values = spectrum.detach().to(device="cpu", dtype=torch.float64)
    values = values[values > 0]
    return values / values.max() / (values / values.max()).sum() if len(values) else values
