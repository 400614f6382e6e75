"""What was counted, and how: sketches merge only where this is the same."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

from torch import Tensor

from compressor.errors import InputError
from compressor.filters.basis import Basis
from compressor.filters.histograms import BINS, fixed_limits
from compressor.filters.quality.sparsity import EPSILONS, Comparison
from compressor.filters.sketching.binning import Binning

__all__ = ["SketchSetting"]


@dataclass(frozen=True, repr=False)
class SketchSetting:
    """The basis, bins and thresholds of sketches.

    `limit` is where the bins end, on both sides: coefficients of scaled kernels cannot lie outside √K + ‖μ‖,
    so that a fixed range loses none and histograms merge by adding. Without it, that of `fixed_limits`: 3.2
    for 3 x 3 kernels. `epsilons` are those that sparse kernels are counted for, each with both comparisons;
    `epsilon` and `comparison` say which kernels the clean populations are without.

    Raises InputError for a range that coefficients could leave, bins below two, thresholds outside 0..1.

    >>> SketchSetting(Basis.cosines((3, 3)))
    SketchSetting(basis ..., 70 bins over ±3.2, 7 thresholds, clean at < 0.01)

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331: 70 bins. Departure: the authors take the range of
    the data at hand, for which histograms made apart cannot be added.*
    """

    basis: Basis
    _: KW_ONLY
    bins: int = BINS
    limit: float | None = None
    epsilons: tuple[float, ...] = EPSILONS
    epsilon: float = 0.01
    comparison: Comparison = Comparison.BELOW

    def __post_init__(self) -> None:
        if self.limit is None:
            object.__setattr__(self, "limit", fixed_limits(self.basis)[1])
        if self.bins < 2:
            raise InputError(f"bins must be 2 or more, got {self.bins}")
        furthest = self.basis.reach
        if not furthest < self.range_limit < math.inf:
            raise InputError(
                f"coefficients of kernels of {self.width} elements in this basis reach ±{furthest:.4g}, "
                f"beyond the bins, which end at ±{self.range_limit:.4g}: set limit above {furthest:.4g}, the "
                "same for all sketches that are to merge"
            )
        object.__setattr__(self, "epsilons", tuple(map(float, self.epsilons)))
        if not self.epsilons or not all(0 < epsilon < 1 for epsilon in (*self.epsilons, self.epsilon)):
            raise InputError(
                f"thresholds lie between 0 and 1 (0.01 for 1 % of the layer's peak), got {self.epsilons} "
                f"and {self.epsilon} for the clean kernels"
            )

    def __repr__(self) -> str:
        return (
            f"SketchSetting(basis {self.basis.identity}, {self.bins} bins over ±{self.range_limit:.4g}, "
            f"{len(self.epsilons)} thresholds, clean at {self.comparison.value} {self.epsilon:g})"
        )

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "binning"}

    @property
    def range_limit(self) -> float:
        """Where the bins end, given or not."""
        assert self.limit is not None
        return self.limit

    @property
    def width(self) -> int:
        """The number of elements of a kernel, K."""
        return self.basis.width

    @cached_property
    def binning(self) -> Binning:
        """What puts coefficients into bins."""
        return Binning(self.basis.mean_K, self.basis.components_KK, limit=self.range_limit, bins=self.bins)

    def thresholds(self, peak: Tensor) -> dict[Comparison, tuple[float, ...]]:
        """What a kernel's peak is compared with, by comparison and ε, in the arithmetic of `peak`'s type."""
        return {how: tuple(threshold(peak, epsilon, how) for epsilon in self.epsilons) for how in Comparison}

    def differences(self, other: SketchSetting) -> list[str]:
        """One line for each thing that differs, empty where sketches of both merge.

        >>> from compressor.filters.basis import Basis
        >>> basis = Basis.cosines((3, 3))
        >>> SketchSetting(basis).differences(SketchSetting(basis, bins=100))
        ['bins: 70 and 100']
        """
        if self is other:
            return []
        pairs: dict[str, tuple[object, object]] = {
            "elements of a kernel": (self.width, other.width),
            "basis": (self.basis.axes, other.basis.axes),
            "bins": (self.bins, other.bins),
            "limit": (self.limit, other.limit),
            "epsilons": (self.epsilons, other.epsilons),
            "epsilon of clean kernels": (self.epsilon, other.epsilon),
            "comparison of clean kernels": (self.comparison.value, other.comparison.value),
        }
        return [f"{what}: {one} and {two}" for what, (one, two) in pairs.items() if one != two]


def threshold(peak: Tensor, epsilon: float, comparison: Comparison) -> float:
    """What `sparse_peaks` compares with; infinite for a layer of zeros, all of which is sparse.

    >>> import torch
    >>> threshold(torch.tensor(2.0), 0.5, Comparison.BELOW)
    1.0
    """
    if not float(peak):
        return math.inf
    return float(peak / (1 / epsilon) if comparison is Comparison.AT_MOST else epsilon * peak)
