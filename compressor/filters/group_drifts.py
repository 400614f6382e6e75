"""Drifts between several groups of kernels, each with each: networks, tasks, depths."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from compressor.errors import InputError
from compressor.filters.basis import Basis
from compressor.filters.drift import (
    Drift,
    Kernels,
    drift_of_histograms,
    kernel_groups,
    pooled_basis,
    pooled_histogram,
)
from compressor.filters.histograms import BINS, data_limits
from compressor.tables import aligned

__all__ = ["GroupDrifts", "drifts", "published_drifts"]


@dataclass(frozen=True, repr=False, eq=False)
class GroupDrifts:
    """The drift of every pair of groups, all in one basis with one range of bins; as text a table.

    `found[a, b]` is their drift, in either order.
    """

    names: tuple[str, ...]
    pairs: dict[tuple[str, str], Drift]
    basis: Basis

    def __getitem__(self, pair: tuple[str, str]) -> Drift:
        found = self.pairs.get(pair) or self.pairs.get((pair[1], pair[0]))
        if found is None:
            raise InputError(f"no drift of {pair}: two different ones of {', '.join(self.names)}")
        return found

    def __repr__(self) -> str:
        above = sum(one.above_noise for one in self.pairs.values())
        return f"GroupDrifts({len(self.names)} groups, {above} of {len(self.pairs)} pairs above noise)"

    def __str__(self) -> str:
        rows = [[name, *(self._cell(name, other) for other in self.names)] for name in self.names]
        return "\n".join([*aligned([["", *self.names], *rows]), "(in parentheses: within noise)"])

    def _cell(self, name: str, other: str) -> str:
        if name == other:
            return "-"
        found = self[name, other]
        return f"{found.value:.4f}" if found.above_noise else f"({found.value:.4f})"


def drifts(
    groups: Mapping[str, Kernels], *, basis: Basis | None = None, bins: int = BINS, seed: int = 0
) -> GroupDrifts:
    """The drift of every pair of named groups, with the fixed limits, without kernels of zeros.

    Without a `basis` the principal axes of all groups together. Raises InputError for fewer than two groups,
    and for groups of different kernel sizes or without kernels.

    >>> import torch
    >>> draw = torch.manual_seed(0)
    >>> nets = {name: torch.randn(64, 16, 3, 3) for name in ("a", "b")} | {"c": torch.rand(64, 16, 3, 3)}
    >>> found = drifts(nets)
    >>> found, found["c", "a"].above_noise
    (GroupDrifts(3 groups, 2 of 3 pairs above noise), True)
    """
    matrices = _matrices(groups)
    basis = basis or pooled_basis(_all(matrices))
    return _between(matrices, basis, bins=bins, limits=None, keep_zeros=False, seed=seed)


def published_drifts(
    groups: Mapping[str, Kernels], *, basis: Basis | None = None, seed: int = 0
) -> GroupDrifts:
    """The same as published: 70 bins from the least to the largest coefficient of all groups, zeros in.

    Numbers of two calls compare only where their `limits` happen to be the same.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331, and their code.*

    >>> import torch
    >>> draw = torch.manual_seed(0)
    >>> published_drifts({"a": torch.randn(64, 16, 3, 3), "b": torch.rand(64, 16, 3, 3)})["a", "b"].limits
    (-3.2..., 1.7...)
    """
    matrices = _matrices(groups)
    basis = basis or pooled_basis(_all(matrices), keep_zeros=True)
    limits = data_limits(_all(matrices), basis, keep_zeros=True)
    return _between(matrices, basis, bins=BINS, limits=limits, keep_zeros=True, seed=seed)


def _between(
    matrices: dict[str, list[Tensor]],
    basis: Basis,
    *,
    bins: int,
    limits: tuple[float, float] | None,
    keep_zeros: bool,
    seed: int,
) -> GroupDrifts:
    histograms = {
        name: pooled_histogram(parts, basis, bins=bins, limits=limits, keep_zeros=keep_zeros)
        for name, parts in matrices.items()
    }
    pairs = {
        (one, two): drift_of_histograms(histograms[one], histograms[two], basis, seed=seed)
        for one, two in itertools.combinations(matrices, 2)
    }
    return GroupDrifts(tuple(matrices), pairs, basis)


def _matrices(groups: Mapping[str, Kernels]) -> dict[str, list[Tensor]]:
    matrices = {name: kernel_groups(kernels, f"the {name}") for name, kernels in groups.items()}
    if len(matrices) < 2:
        raise InputError(f"drifts are of two groups or more, got {list(matrices)}")
    widths = {name: parts[0].shape[1] for name, parts in matrices.items()}
    if len(set(widths.values())) > 1:
        raise InputError(f"groups of one kernel size compare, got elements of a kernel: {widths}")
    return matrices


def _all(matrices: dict[str, list[Tensor]]) -> list[Tensor]:
    return [part for parts in matrices.values() for part in parts]
