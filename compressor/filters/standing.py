"""Where the kernels of layers stand in a basis of kernel shapes, and how far from those of a reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from compressor.errors import InputError
from compressor.filters.bank import FilterBank
from compressor.filters.basis import Basis
from compressor.filters.drift import drift_of_histograms, pooled_basis, pooled_histogram
from compressor.filters.histograms import Histogram
from compressor.filters.kernel_sizes import size_words
from compressor.filters.phenotypes import phenotype
from compressor.filters.report_layers import LayerReport

__all__ = ["Standing", "standing"]


@dataclass(frozen=True)
class Standing:
    """The basis that kernels of this size were told in, and in words what layers were compared with."""

    basis: Basis
    kernel_size: tuple[int, ...]
    reference: str

    def __str__(self) -> str:
        fitted = f"of {self.basis.count:,} kernels" if self.basis.count else "of no data"
        first = ", ".join(f"{100 * share:.0f} %" for share in self.basis.shares_K[:3].tolist())
        return (
            f"D: {size_words(self.kernel_size)} kernels against those of {self.reference}, in basis "
            f"{self.basis.identity} {fitted} (variance of its first shapes: {first}); noise below the floor."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "identity": self.basis.identity,
            "kernel_size": list(self.kernel_size),
            "kernels": self.basis.count,
            "shares": self.basis.shares_K.tolist(),
            "reference": self.reference,
        }


def standing(
    layers: Sequence[LayerReport], *, basis: Basis | None, reference: Sequence[FilterBank] | None
) -> tuple[Standing | None, tuple[LayerReport, ...]]:
    """The basis used, None where there is none, and the layers with what is seen in it.

    Without a `basis` it is that of all kernels of the reference, of the size that most kernels of the layers
    have, 1 x 1 left out; without a `reference` each layer is compared with the others. Raises InputError
    where no layer's kernels fit a basis that was given, or the reference has none of their size.
    """
    if basis is not None and not isinstance(basis, Basis):
        raise InputError(f"a basis is a Basis, got {type(basis).__name__}: Basis.load reads one from a file")
    size = _common_size(layers, None if basis is None else basis.width)
    if size is None:
        if basis is not None:
            raise InputError(
                f"basis {basis.identity} is of kernels of {basis.width} elements, the layers' are of "
                f"{_sizes(layer.bank for layer in layers)}: leave the basis out, or give one of theirs"
            )
        return None, tuple(layers)
    fitting = [layer.bank for layer in layers if layer.bank.kernel_size == size]
    compared = None if reference is None else [bank for bank in reference if bank.kernel_size == size]
    if reference is not None and not compared:
        raise InputError(
            f"the reference has kernels of {_sizes(reference) or 'no size'}, the layers of "
            f"{size_words(size)}: there is nothing to compare them with"
        )
    used = basis or _basis_of(compared or fitting)
    if used is None:
        return None, tuple(layers)
    words = "the other layers" if reference is None else "the reference"
    return Standing(used, size, words), _told(layers, size, used, compared)


def _told(
    layers: Sequence[LayerReport], size: tuple[int, ...], basis: Basis, compared: Sequence[FilterBank] | None
) -> tuple[LayerReport, ...]:
    counted = {
        place: Histogram.of(layer.bank.kernels, basis)
        for place, layer in enumerate(layers)
        if layer.bank.kernel_size == size
    }
    if compared is None:
        whole = reduce(Histogram.merge, counted.values())
        others = {place: _without(whole, one) for place, one in counted.items()}
    else:
        reference = pooled_histogram((bank.kernels for bank in compared), basis)
        others = dict.fromkeys(counted, reference)
    return tuple(
        _one(layer, counted[place], others[place], basis) if place in counted else layer
        for place, layer in enumerate(layers)
    )


def _one(layer: LayerReport, counted: Histogram, other: Histogram, basis: Basis) -> LayerReport:
    measured = layer.quality
    kind = phenotype(
        basis.coefficients(layer.bank.kernels)[:, :2], sparsity=measured.sparsity, entropy=measured.entropy
    )
    drift = drift_of_histograms(counted, other, basis) if counted.count and other.count else None
    return replace(layer, phenotype=kind, histogram=counted, drift=drift)


def _without(whole: Histogram, part: Histogram) -> Histogram:
    return Histogram(
        whole.counts_KB - part.counts_KB, whole.limits, whole.axes, zeros=whole.zeros - part.zeros
    )


def _common_size(layers: Sequence[LayerReport], width: int | None) -> tuple[int, ...] | None:
    """The size of the most kernels, of those with `width` elements, or with more than one."""
    counts: Counter[tuple[int, ...]] = Counter()
    for layer in layers:
        elements = math.prod(layer.bank.kernel_size)
        if elements == width or (width is None and elements > 1):
            counts[layer.bank.kernel_size] += layer.bank.count
    return counts.most_common(1)[0][0] if counts else None


def _basis_of(found: Sequence[FilterBank]) -> Basis | None:
    """The principal axes of the kernels; None for kernels of zeros or of one shape, which have none."""
    try:
        return pooled_basis(bank.kernels for bank in found)
    except InputError:
        return None


def _sizes(found: Iterable[FilterBank]) -> str:
    return ", ".join(sorted({size_words(bank.kernel_size) for bank in found}))
