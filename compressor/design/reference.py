"""Kernels drawn from those of a reference: one by one, from their moments, or from their histograms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from compressor.design.initialiser import Initialiser
from compressor.design.layer import Part
from compressor.design.noise import GAIN_OF_RELU, check_gain
from compressor.errors import InputError
from compressor.filters import Basis, FilterBank, Histogram, Moments
from compressor.filters.kernel_sizes import size_words

__all__ = ["GaussianKernels", "HistogramKernels", "SampledKernels", "unit_kernels"]


def unit_kernels(banks: Iterable[FilterBank]) -> dict[tuple[int, ...], Tensor]:
    """The kernels [N, K] of all banks by kernel size, in float64, those of each bank of mean square 1.

    So wide layers, whose weights are small, and narrow ones come to one scale, while kernels of one layer
    keep their sizes against each other. Raises InputError for a bank of zeros, or where there is none.

    >>> banks = [FilterBank(torch.full((2, 1, 3), 5.0), "a"), FilterBank(torch.ones(1, 1, 3), "b")]
    >>> unit_kernels(banks)[3,].shape
    torch.Size([3, 3])
    """
    found: dict[tuple[int, ...], list[Tensor]] = {}
    for bank in banks:
        if not isinstance(bank, FilterBank):
            raise InputError(f"a reference is an iterable of FilterBanks, got a {type(bank).__name__}")
        kernels = bank.kernels.detach().double().cpu()
        size = float(kernels.square().mean().sqrt())
        if not size > 0:
            raise InputError(f"{bank!r} holds zeros only and is no reference: leave it out")
        found.setdefault(bank.kernel_size, []).append(kernels / size)
    if not found:
        raise InputError("the reference holds no filter bank; expected at least one")
    return {size: torch.cat(parts) for size, parts in found.items()}


@dataclass(frozen=True)
class SampledKernels(Initialiser):
    """Kernels drawn with replacement from the banks of a healthy reference, scaled to He's variance.

    Each kernel of a filter is drawn by itself: shapes and their frequencies are the reference's, what the
    kernels of one filter have to do with each other is lost. Banks come to mean square 1 first (see
    `unit_kernels`), and what is drawn is multiplied by gain / √fan-in, so its mean square is He's in
    expectation. Kernels with a common mean add up where inputs have one, too, unlike He's.
    Raises InputError where the reference has no kernels of a layer's size.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331: distributions of kernels differ little between
    networks.* As an initialisation this is ours.

    >>> from compressor.design import initialise_
    >>> donor, conv = torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(3, 4, 3)
    >>> _ = initialise_(conv, SampledKernels([FilterBank(donor.weight, "donor")]))
    """

    reference: Iterable[FilterBank] = field(repr=False)
    gain: float = GAIN_OF_RELU
    _pools: dict[tuple[int, ...], Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_gain("SampledKernels", self.gain)
        object.__setattr__(self, "_pools", unit_kernels(self.reference))

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """So many rows of the pool of that kernel size."""
        pool = self._pools.get(part.kernel_size)
        if pool is None:
            raise InputError(
                f"SampledKernels: {part.layer.name} has kernels of {_shown(part.kernel_size)}, the "
                f"reference of {', '.join(map(_shown, self._pools))}; name the layers that fit, or give "
                "another reference"
            )
        count = part.count * part.channels
        drawn = torch.randint(len(pool), (count,), generator=generator, device=generator.device)
        return _scaled(part, pool[drawn.to(pool.device)], self.gain)


@dataclass(frozen=True)
class GaussianKernels(Initialiser):
    """Kernels drawn from the Gaussian with the mean and covariance of a reference's kernels.

    `moments` are those of kernels [N, K] of one size: `Moments.of(bank.kernels)`, or merged over a data set.
    What is drawn is multiplied so that its mean square is He's in expectation. Single kernels
    that stand out, which `SampledKernels` draws again, become the tails of a normal distribution.

    *Source: the moments of P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331, section 3.* As an
    initialisation this is ours.

    >>> from compressor.design import initialise_
    >>> conv = torch.nn.Conv2d(3, 4, 3)
    >>> _ = initialise_(conv, GaussianKernels(Moments.of(torch.randn(100, 9))))
    """

    moments: Moments
    gain: float = GAIN_OF_RELU
    _: KW_ONLY

    def __post_init__(self) -> None:
        check_gain("GaussianKernels", self.gain)

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The mean + V √Λ z, for normal z."""
        moments, taps = self.moments, math.prod(part.kernel_size)
        if moments.width != taps or not part.kernel_size:
            raise InputError(
                f"GaussianKernels: {part.layer.name} has kernels of {_shown(part.kernel_size)}, the "
                f"moments are of {moments.width} weights; name the layers that fit"
            )
        variances, axes = torch.linalg.eigh(moments.covariance)
        noise = torch.empty(
            (part.count * part.channels, taps), dtype=torch.float64, device=generator.device
        ).normal_(generator=generator)
        kernels = moments.mean_K + (noise.cpu() * variances.clamp(min=0).sqrt()) @ axes.T
        size = float(variances.clamp(min=0).sum() + moments.mean_K.square().sum()) / taps
        if not size > 0:
            raise InputError("GaussianKernels: the moments are those of kernels of zeros")
        return _scaled(part, kernels / math.sqrt(size), self.gain)


@dataclass(frozen=True)
class HistogramKernels(Initialiser):
    """Kernels whose coefficients in a basis follow the histograms of a reference, each component by itself.

    A coefficient is drawn from a bin by its count, and evenly within the bin; a kernel is the basis' mean
    plus its coefficients times the components, multiplied so that its mean square is He's in expectation.
    In the basis of the reference coefficients are uncorrelated, so the covariance is that of the reference's
    scaled kernels, up to the width of the bins; how they depend on each other beyond that is lost, and so
    are the sizes of kernels against each other, as a basis scales each to a largest weight of 1.
    A `Histogram` holds a few hundred numbers for any number of kernels, so this takes whole data sets.

    *Source: coefficients and bins of P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331.* As an initialisation
    this is ours.

    Raises InputError for a histogram of another basis, of no kernels, and for kernels of another size.

    >>> from compressor.design import initialise_
    >>> kernels = torch.randn(100, 9)
    >>> basis = Basis.of_kernels(kernels)
    >>> conv = torch.nn.Conv2d(3, 4, 3)
    >>> _ = initialise_(conv, HistogramKernels(Histogram.of(kernels, basis), basis))
    """

    histogram: Histogram
    basis: Basis
    gain: float = GAIN_OF_RELU

    def __post_init__(self) -> None:
        check_gain("HistogramKernels", self.gain)
        if self.histogram.axes != self.basis.axes:
            raise InputError(
                f"HistogramKernels: coefficients were counted along axes {self.histogram.axes}, the basis "
                f"has {self.basis.axes}: give the basis that the histogram was made in"
            )
        if not self.histogram.count:
            raise InputError("HistogramKernels: the histogram counts no kernel that is not zero")

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The mean + Vᵀ c, for coefficients c drawn from the bins."""
        if self.basis.width != math.prod(part.kernel_size) or not part.kernel_size:
            raise InputError(
                f"HistogramKernels: {part.layer.name} has kernels of {_shown(part.kernel_size)}, the basis "
                f"is of {self.basis.width} weights; name the layers that fit"
            )
        low, width = self.histogram.limits[0], self.histogram.bin_width
        shares_KB = self.histogram.counts_KB.double() / self.histogram.count
        count, device = part.count * part.channels, generator.device
        bins_KN = torch.multinomial(shares_KB.to(device), count, replacement=True, generator=generator)
        within_KN = torch.empty_like(bins_KN, dtype=torch.float64).uniform_(generator=generator)
        found_NK = (low + width * (bins_KN + within_KN)).T.cpu()
        kernels_NK = self.basis.mean_K + found_NK @ self.basis.components_KK
        return _scaled(part, kernels_NK / math.sqrt(self._mean_square(shares_KB)), self.gain)

    def _mean_square(self, shares_KB: Tensor) -> float:
        """That of a weight, over everything that can be drawn."""
        low, width = self.histogram.limits[0], self.histogram.bin_width
        middles_B = low + width * (torch.arange(shares_KB.shape[1], dtype=torch.float64) + 0.5)
        means_K = shares_KB @ middles_B
        squares_K = shares_KB @ middles_B.square() + width**2 / 12
        mean_K = self.basis.mean_K + means_K @ self.basis.components_KK
        spread = squares_K.sum() - means_K.square().sum()
        return float(mean_K.square().sum() + spread) / self.basis.width


def _scaled(part: Part, kernels_NK: Tensor, gain: float) -> Tensor:
    filters = kernels_NK.to(part.filters).reshape(part.count, part.channels, *part.kernel_size)
    return filters * (gain / math.sqrt(part.fan_in))


def _shown(size: tuple[int, ...]) -> str:
    return size_words(size) or "no extent"
