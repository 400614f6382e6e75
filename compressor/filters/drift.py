"""Drift: how far the kernel shapes of two layers or networks are apart, and whether that is noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import FilterBank, checked_weight, require_finite
from compressor.filters.basis import Basis
from compressor.filters.divergence import divergence
from compressor.filters.histograms import BINS, Histogram, fixed_limits, without_zeros
from compressor.filters.kernel_sizes import size_words
from compressor.filters.moments import Moments
from compressor.filters.noise import Noise, noise_floor
from compressor.filters.scaling import scaled_kernels

__all__ = [
    "Drift",
    "Kernels",
    "drift",
    "drift_of_histograms",
    "kernel_groups",
    "pooled_basis",
    "pooled_histogram",
]

# Legend of shape suffixes: N kernels, K elements of a kernel.

Kernels = Tensor | FilterBank | Iterable[FilterBank]
"""A matrix of kernels [N, K], a weight [O, I, *k], a bank, or banks that are pooled."""


@dataclass(frozen=True, repr=False)
class Drift:
    """The distance D of two sets of kernels, and the noise floor of sets of these sizes.

    `zeros` are the kernels of zeros on both sides, which D leaves out. Numbers compare only where `basis`
    (`Basis.identity`), `bins` and `limits` are the same.
    """

    value: float
    noise: Noise
    _: KW_ONLY
    counts: tuple[int, int]
    zeros: tuple[int, int]
    basis: str
    bins: int
    limits: tuple[float, float]

    @property
    def above_noise(self) -> bool:
        """Whether D is larger than two samples of one distribution would have it by chance."""
        return self.value > self.noise.high

    @property
    def zero_shares(self) -> tuple[float, float]:
        """The share of kernels of zeros on both sides, 0 to 1."""
        first, second = (
            zeros / (zeros + count) for zeros, count in zip(self.zeros, self.counts, strict=True)
        )
        return first, second

    def __repr__(self) -> str:
        said = "above noise" if self.above_noise else "within noise"
        return f"Drift({self.value:.4g}, {said}: {self.noise.expected:.2g} to {self.noise.high:.2g})"


def drift(
    a: Kernels,
    b: Kernels,
    *,
    basis: Basis | None = None,
    bins: int = BINS,
    limits: tuple[float, float] | None = None,
    keep_zeros: bool = False,
    seed: int = 0,
) -> Drift:
    """The drift between two sets of kernels of one size: layers, weights, or whole networks, banks pooled.

    Without a `basis` the principal axes of both sets together. Published numbers take one basis for all
    groups of a study, and so should numbers that are compared: `pooled_basis` of all, or a reference basis.
    `limits` are `fixed_limits` by default; `published_drifts` has the published ones. Kernels of zeros, which
    pruning in place writes, are left out and counted; `keep_zeros=True` has them in, as published. `seed`
    is of the noise floor.

    Samples that overlap (a layer before and after whole filters were removed) lie closer than the noise
    floor of independent ones. Raises InputError for sets of different kernel sizes, without kernels, or not
    finite.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331, and their code; see `divergence`, `noise_floor`.*

    >>> import torch
    >>> draw = torch.manual_seed(0)
    >>> some, others = torch.randn(64, 32, 3, 3), torch.randn(64, 32, 3, 3)
    >>> drift(some, others)
    Drift(0.06..., within noise: 0.0... to 0.0...)
    >>> drift(some, others.cumsum(-1)).above_noise
    True
    """
    sides = [kernel_groups(side, named) for side, named in ((a, "the first"), (b, "the second"))]
    sizes = [groups[0].shape[1] for groups in sides]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"kernels of {sizes[0]} and of {sizes[1]} elements do not compare: choose layers of one "
            "kernel size"
        )
    if basis is None:
        basis = pooled_basis([*sides[0], *sides[1]], keep_zeros=keep_zeros)
    histograms = [
        pooled_histogram(groups, basis, bins=bins, limits=limits, keep_zeros=keep_zeros) for groups in sides
    ]
    return drift_of_histograms(histograms[0], histograms[1], basis, seed=seed)


def drift_of_histograms(p: Histogram, q: Histogram, basis: Basis, *, seed: int = 0) -> Drift:
    """The same from histograms, made of kernels or merged from parts, in this basis."""
    return Drift(
        divergence(p, q, basis),
        noise_floor(p, q, basis, seed=seed),
        counts=(p.count, q.count),
        zeros=(p.zeros, q.zeros),
        basis=basis.identity,
        bins=p.counts_KB.shape[1],
        limits=p.limits,
    )


def pooled_basis(groups: Iterable[Tensor], *, keep_zeros: bool = False) -> Basis:
    """The principal axes of all kernels of all groups [N, K] together, scaled; one group is read at a time.

    >>> import torch
    >>> pooled_basis([torch.randn(100, 9), torch.randn(50, 9)]).count
    150
    """
    total: Moments | None = None
    for kernels_NK in groups:
        chosen_NK = kernels_NK if keep_zeros else without_zeros(kernels_NK)
        if len(chosen_NK):
            moments = Moments.of(scaled_kernels(chosen_NK))
            total = moments if total is None else total.merge(moments)
    if total is None:
        raise InputError("a basis takes kernels: the groups are empty, or of zeros only")
    return Basis.of_moments(total)


def pooled_histogram(
    groups: Iterable[Tensor],
    basis: Basis,
    *,
    bins: int = BINS,
    limits: tuple[float, float] | None = None,
    keep_zeros: bool = False,
) -> Histogram:
    """The histogram of all kernels of all groups [N, K]; one group is read at a time."""
    limits = limits or fixed_limits(basis)
    parts = (
        Histogram.of(kernels_NK, basis, bins=bins, limits=limits, keep_zeros=keep_zeros)
        for kernels_NK in groups
    )
    total = next(parts)
    for part in parts:
        total = total.merge(part)
    return total


def kernel_groups(kernels: Kernels, named: str) -> list[Tensor]:
    """The kernel matrices [N, K] of one kernel size of what was given; InputError for others."""
    if isinstance(kernels, Tensor):
        if kernels.ndim > 2:
            return [checked_weight(kernels, f"the weight of {named} kernels").flatten(0, 1).flatten(1)]
        if kernels.ndim < 2 or not kernels.numel() or not kernels.is_floating_point():
            raise InputError(
                f"{named} kernels: expected a matrix [N, K] or a weight [O, I, *k] of a floating type, not "
                f"empty, got {kernels.dtype} {list(kernels.shape)}"
            )
        require_finite(kernels, f"the matrix of {named} kernels")
        return [kernels.detach()]
    given = [kernels] if isinstance(kernels, FilterBank) else kernels
    banks = list(given) if isinstance(given, Iterable) else []
    if not banks or not all(isinstance(bank, FilterBank) for bank in banks):
        got = "none" if isinstance(kernels, Iterable) and not banks else type(kernels).__name__
        raise InputError(
            f"{named} kernels: expected one bank at least, got {got}; banks(model) makes those of a model"
        )
    size_of = {bank.kernel_size: bank for bank in banks}
    if len(size_of) > 1:
        said = ", ".join(f"{size_words(size)} ({bank.name})" for size, bank in size_of.items())
        raise InputError(
            f"{named} kernels are of several sizes: {said}. Choose one, as in "
            "[bank for bank in banks(model) if bank.kernel_size == (3, 3)]"
        )
    return [bank.kernels for bank in banks]
