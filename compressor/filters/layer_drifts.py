"""Drifts layer by layer: the same layers before and after pruning or fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from compressor.errors import InputError
from compressor.filters.bank import FilterBank
from compressor.filters.basis import Basis
from compressor.filters.drift import Drift, drift, pooled_basis
from compressor.filters.histograms import BINS
from compressor.filters.kernel_sizes import size_words
from compressor.tables import aligned

__all__ = ["LayerDrift", "LayerDrifts", "compare"]

_TITLES = ("layer", "kernel", "before", "after", "zero", "zero", "D", "noise", "up to", "")


@dataclass(frozen=True)
class LayerDrift:
    """The drift of one layer, or why there is none."""

    name: str
    kernel_size: tuple[int, ...] | None
    drift: Drift | None
    reason: str = ""

    def __str__(self) -> str:
        return "  ".join(filter(None, self.cells()))

    def cells(self) -> tuple[str, ...]:
        """What stands in its row of a table, in the order of the titles."""
        size = "x".join(map(str, self.kernel_size)) if self.kernel_size else "-"
        if self.drift is None:
            return (self.name, size, *[""] * 7, self.reason)
        found, noise = self.drift, self.drift.noise
        return (
            *(self.name, size),
            *(f"{count:,}" for count in found.counts),
            *(f"{share:.1%}" for share in found.zero_shares),
            *(f"{value:.4f}" for value in (found.value, noise.expected, noise.high)),
            "above" if found.above_noise else "within",
        )


@dataclass(frozen=True, repr=False, eq=False)
class LayerDrifts:
    """The drifts of all layers in the order of the first network; as text a table. `bases` are by size.

    `rows` holds every layer of either side: also those that were not compared, with the reason.
    """

    rows: tuple[LayerDrift, ...]
    bases: dict[tuple[int, ...], Basis]

    def __iter__(self) -> Iterator[LayerDrift]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> LayerDrift:
        for row in self.rows:
            if row.name == name:
                return row
        raise InputError(f"no layer {name!r}: there are {', '.join(row.name for row in self.rows)}")

    @property
    def compared(self) -> tuple[LayerDrift, ...]:
        """The layers that have a drift."""
        return tuple(row for row in self.rows if row.drift is not None)

    def __repr__(self) -> str:
        above = sum(row.drift is not None and row.drift.above_noise for row in self.rows)
        left = len(self.rows) - len(self.compared)
        return f"LayerDrifts({len(self.compared)} layers compared, {above} above noise, {left} left out)"

    def __str__(self) -> str:
        return "\n".join(aligned([_TITLES, *(row.cells() for row in self.rows)], words_last=True))


def compare(
    before: Iterable[FilterBank],
    after: Iterable[FilterBank],
    *,
    basis: Basis | None = None,
    bins: int = BINS,
    keep_zeros: bool = False,
    seed: int = 0,
) -> LayerDrifts:
    """The drift of every layer that both sides have by name, on the kernels that are not zero.

    Layers of one kernel size share a basis: the principal axes of all their kernels, before and after,
    together; or the `basis` given, for layers whose kernels it fits, others being left out. So the numbers
    of a table compare with each other. What is not compared (layers of one side only, sizes that changed,
    kernels of one element, layers of zeros) is in the table with the reason. Removing filters changes the
    number of kernels, hence the noise floor; where it is impartial, D stays below it. D compares
    distributions: kernels that moved and are distributed as before have none.

    Raises InputError where a side has no layers, or two of one name.

    *Source: see `drift`.*

    >>> import torch
    >>> dense = [FilterBank(torch.randn(32, 32, 3, 3), "conv1"), FilterBank(torch.randn(8, 8, 1, 1), "conv2")]
    >>> pruned = [FilterBank(dense[0].weight[:16], "conv1")]
    >>> compare(dense, pruned)
    LayerDrifts(1 layers compared, 0 above noise, 1 left out)
    """
    first, second = _by_name(before, "before"), _by_name(after, "after")
    reasons = {
        name: _reason(first.get(name), second.get(name), basis) for name in dict.fromkeys([*first, *second])
    }
    bases: dict[tuple[int, ...], Basis] = {}
    for size in dict.fromkeys(first[name].kernel_size for name, reason in reasons.items() if not reason):
        alike = [name for name, reason in reasons.items() if not reason and first[name].kernel_size == size]
        kernels = [side[name].kernels for name in alike for side in (first, second)]
        try:
            bases[size] = basis or pooled_basis(kernels, keep_zeros=keep_zeros)
        except InputError:  # all of one shape, a depthwise layer of one channel perhaps: no axes
            reasons |= dict.fromkeys(alike, "all kernels of this size have one shape")
    rows = []
    for name, reason in reasons.items():
        bank = first.get(name) or second[name]
        found = None
        if not reason:
            found = drift(
                first[name],
                second[name],
                basis=bases[bank.kernel_size],
                bins=bins,
                keep_zeros=keep_zeros,
                seed=seed,
            )
        rows.append(LayerDrift(name, bank.kernel_size, found, reason))
    return LayerDrifts(tuple(rows), bases)


def _by_name(banks: Iterable[FilterBank], side: str) -> dict[str, FilterBank]:
    found: dict[str, FilterBank] = {}
    for bank in banks:
        if bank.name in found:
            raise InputError(f"{side}: two layers are called {bank.name!r}: compare one model with one")
        found[bank.name] = bank
    if not found:
        raise InputError(f"{side}: no layers to compare; banks(model) gives those of a model")
    return found


def _reason(first: FilterBank | None, second: FilterBank | None, basis: Basis | None) -> str:
    """Why two layers are not compared, empty where they are."""
    if first is None or second is None:
        return f"only {'after' if first is None else 'before'}"
    if first.kernel_size != second.kernel_size:
        return f"kernels of {size_words(second.kernel_size)} after"
    width = math.prod(first.kernel_size)
    if width == 1:
        return "kernels of one element have no shape"
    if basis is not None and basis.width != width:
        return f"the basis is of kernels of {basis.width} elements"
    for side, bank in (("before", first), ("after", second)):
        if not bool(bank.weight.any()):
            return f"all zero {side}"
    return ""
