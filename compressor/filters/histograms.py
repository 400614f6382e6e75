"""Histograms of the coefficients of kernels: counts that add up, whatever pieces the kernels come in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import require_finite
from compressor.filters.basis import Basis
from compressor.filters.scaling import kernel_peaks, scaled_kernels

__all__ = ["BINS", "Histogram", "data_limits", "fixed_limits"]

# Legend of shape suffixes: N kernels, K elements of a kernel and components of the basis, B bins.

BINS = 70
_KERNELS_AT_ONCE = 1 << 14


@dataclass(frozen=True, repr=False, eq=False)
class Histogram:
    """How many kernels have each coefficient in each of B equal bins between two limits; exact counts.

    Those of two sets of kernels `merge` to those of both, where axes, limits and bins are the same, and are
    the same to the last kernel however a set is cut. Kernels of zeros are not counted here but in `zeros`:
    where pruning wrote them, they are no shape, and a spike of them drowns every other difference.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331 and their code: 70 bins, one range for all
    components.* Departures: the range is fixed by default (`fixed_limits`), where theirs is that of the
    data at hand (`data_limits`), so that histograms made apart compare; zeros are left out, where theirs
    count them (`keep_zeros=True`).

    >>> kernels = torch.randn(1000, 9, generator=torch.manual_seed(0))
    >>> basis = Basis.cosines((3, 3))
    >>> whole = Histogram.of(kernels, basis)
    >>> whole
    Histogram(1,000 kernels, 9 components in 70 bins over -3.2 ... 3.2)
    >>> parts = Histogram.of(kernels[:3], basis).merge(Histogram.of(kernels[3:], basis))
    >>> bool((parts.counts_KB == whole.counts_KB).all())
    True
    """

    counts_KB: Tensor
    """int64, on the CPU."""
    limits: tuple[float, float]
    axes: str
    """`Basis.axes` of the basis."""
    _: KW_ONLY
    zeros: int = 0

    def __post_init__(self) -> None:
        counts_KB = self.counts_KB.detach().cpu().clone()
        object.__setattr__(self, "counts_KB", counts_KB)
        _check_limits(self.limits)
        sums_K = counts_KB.sum(dim=1) if counts_KB.ndim == 2 and counts_KB.numel() else None
        if counts_KB.dtype != torch.int64 or sums_K is None or bool((sums_K != sums_K[0]).any()):
            raise InputError(
                "a histogram has int64 counts [K, B], with as many kernels in each row, got "
                f"{counts_KB.dtype} {list(counts_KB.shape)}"
            )
        if bool((counts_KB < 0).any()) or self.zeros < 0:
            raise InputError("the counts of a histogram are 0 or more")

    @classmethod
    def of(
        cls,
        kernels_NK: Tensor,
        basis: Basis,
        *,
        bins: int = BINS,
        limits: tuple[float, float] | None = None,
        keep_zeros: bool = False,
    ) -> Histogram:
        """The histogram of kernels [N, K], which are scaled first; see the class. N may be 0.

        Raises InputError where a coefficient lies outside the limits, or is not finite.
        """
        basis.require_width(kernels_NK.shape[-1], "kernels")
        require_finite(kernels_NK, "the kernels")
        limits = fixed_limits(basis) if limits is None else _check_limits(limits)
        if bins < 2:
            raise InputError(f"a histogram has 2 bins or more, got {bins}")
        counts_KB = torch.zeros(basis.width, bins, dtype=torch.int64)
        kept = 0
        for part_NK in kernels_NK.detach().split(_KERNELS_AT_ONCE):
            chosen_NK = part_NK if keep_zeros else without_zeros(part_NK)
            kept += len(chosen_NK)
            counts_KB += _counts(coefficients_by_rule(chosen_NK, basis), limits, bins).cpu()
        return cls(counts_KB, limits, basis.axes, zeros=len(kernels_NK) - kept)

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both sets of kernels; InputError where they were not counted alike."""
        self.require_like(other)
        return Histogram(
            self.counts_KB + other.counts_KB, self.limits, self.axes, zeros=self.zeros + other.zeros
        )

    def require_like(self, other: Histogram) -> None:
        """Nothing where both were counted alike; raises InputError with what differs."""
        pairs = {
            "axes of basis": (self.axes, other.axes),
            "limits": (self.limits, other.limits),
            "shape": (tuple(self.counts_KB.shape), tuple(other.counts_KB.shape)),
        }
        apart = [f"{what} {one} and {two}" for what, (one, two) in pairs.items() if one != two]
        if apart:
            raise InputError(
                f"histograms that were not counted alike do not compare: {'; '.join(apart)}. Count both in "
                "one basis, with the same limits and bins"
            )

    @property
    def count(self) -> int:
        """How many kernels are counted."""
        return int(self.counts_KB[0].sum())

    @property
    def bin_width(self) -> float:
        """The width of a bin."""
        return (self.limits[1] - self.limits[0]) / self.counts_KB.shape[1]

    def __repr__(self) -> str:
        components, bins = self.counts_KB.shape
        low, high = self.limits
        zeros = f", {self.zeros:,} of zeros left out" if self.zeros else ""
        return (
            f"Histogram({self.count:,} kernels{zeros}, {components} components in {bins} bins over "
            f"{low:.4g} ... {high:.4g})"
        )


def fixed_limits(basis: Basis) -> tuple[float, float]:
    """Limits that no coefficient of scaled kernels exceeds: ±3.2 for 3×3, ±3.2 √K / 3 for K elements.

    |c| ≤ √K + ‖μ‖; where a mean is so large that this reaches further, so do the limits.

    >>> fixed_limits(Basis.cosines((3, 3)))
    (-3.2, 3.2)
    """
    limit = 3.2 * (math.sqrt(basis.width) / 3)
    if limit <= basis.reach:
        limit = 1.02 * basis.reach
    return -limit, limit


def data_limits(groups: Iterable[Tensor], basis: Basis, *, keep_zeros: bool = False) -> tuple[float, float]:
    """The least and the largest coefficient of all components of all groups of kernels: the published limits.

    >>> basis = Basis.cosines((1, 2))
    >>> low, high = data_limits([torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])], basis)
    >>> round(low, 4), round(high, 4)
    (0.0, 1.4142)
    """
    low, high = math.inf, -math.inf
    for kernels_NK in groups:
        basis.require_width(kernels_NK.shape[-1], "kernels")
        for part_NK in kernels_NK.detach().split(_KERNELS_AT_ONCE):
            chosen_NK = part_NK if keep_zeros else without_zeros(part_NK)
            if len(chosen_NK):
                least, largest = coefficients_by_rule(chosen_NK, basis).aminmax()
                low, high = min(low, float(least)), max(high, float(largest))
    if not low < high:
        raise InputError(
            f"limits of the data take coefficients that differ, got {low} to {high}: the groups have no "
            "kernels, or one shape only"
        )
    return low, high


def without_zeros(kernels_NK: Tensor) -> Tensor:
    """The kernels that are not all zero."""
    zero_N = kernel_peaks(kernels_NK) == 0 if len(kernels_NK) else kernels_NK.new_zeros(0, dtype=torch.bool)
    return kernels_NK[~zero_N] if bool(zero_N.any()) else kernels_NK


def coefficients_by_rule(kernels_NK: Tensor, basis: Basis) -> Tensor:
    """The coefficients [K, N] in float64, each summed in the order of the elements.

    Every step rounds once. A matrix product rounds differently from shape to shape and from machine to
    machine, and the last bit decides about a value at the edge of a bin: only such a rule gives the same
    counts for any chunks and devices.
    """
    if kernels_NK.device.type == "mps":  # has no float64
        kernels_NK = kernels_NK.cpu()
    scaled_KN = scaled_kernels(kernels_NK).T.double() if len(kernels_NK) else kernels_NK.T.double()
    mean_K, columns_KK = (part.to(kernels_NK.device) for part in (basis.mean_K, basis.components_KK.T))
    found_KN = torch.zeros_like(scaled_KN, memory_format=torch.contiguous_format)
    for element, column_K in enumerate(columns_KK):
        # Not addcmul: it may round once for product and sum together.
        found_KN += (scaled_KN[element] - mean_K[element]) * column_K[:, None]
    return found_KN


def _counts(coefficients_KN: Tensor, limits: tuple[float, float], bins: int) -> Tensor:
    """The counts [K, B], by the edges of numpy.linspace as numpy.histogram has it: the last bin is closed."""
    low, high = limits
    if coefficients_KN.numel():
        least, largest = map(float, coefficients_KN.aminmax())
        if not low <= least <= largest <= high:  # so written that NaN is found
            raise InputError(
                f"coefficients of these kernels lie in {least:.6g} ... {largest:.6g}, outside the limits "
                f"{low:.6g} ... {high:.6g}: give wider ones, the same for all that is compared"
            )
    edges = torch.from_numpy(np.linspace(low, high, bins + 1)).to(coefficients_KN.device)
    places = ((coefficients_KN - low) * (bins / (high - low))).long().clamp_(0, bins - 1)
    places -= (coefficients_KN < edges[places]).long()  # a step of rounding off, at most
    places += ((coefficients_KN >= edges[places + 1]) & (places < bins - 1)).long()
    components = len(coefficients_KN)
    places += torch.arange(components, device=places.device)[:, None] * bins
    return torch.bincount(places.flatten(), minlength=components * bins).reshape(components, bins)


def _check_limits(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = map(float, limits)
    if not -math.inf < low < high < math.inf:
        raise InputError(f"limits are two finite numbers, the lower one first, got {limits}")
    return low, high
