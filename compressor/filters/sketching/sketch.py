"""What is kept of the kernels of a layer, or of many: some kilobytes that add up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.basis import Basis
from compressor.filters.drift import Drift, drift_of_histograms
from compressor.filters.histograms import Histogram
from compressor.filters.moments import Moments
from compressor.filters.quality.entropy import entropy_of_moments
from compressor.filters.quality.populations import Population
from compressor.filters.quality.sparsity import Comparison
from compressor.filters.sketching.setting import SketchSetting

__all__ = ["Sketch"]

# Legend of shape suffixes: K elements of a kernel (and components of the basis), B bins, E thresholds.


@dataclass(frozen=True, eq=False, repr=False)
class Sketch:
    """Counts and sums of kernels: enough for S, H, principal axes and D, without the kernels.

    The sketches of two sets of kernels `merge` to the sketch of both, in any order and grouping: exactly, but
    for the last bits of the moments. Kernels are sparse beside the peak of their own layer, also where layers
    were merged. `counts_KB` and the moments hold exact zeros like any other kernel; `histogram` and
    `scaled_without_zeros` leave them out.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331, for what is counted; merging: see `Moments`.*

    >>> from compressor.filters import FilterBank, sketch
    >>> setting = SketchSetting(Basis.cosines((3, 3)))
    >>> draw = torch.manual_seed(0)
    >>> weights = torch.randn(16, 4, 3, 3), torch.randn(64, 4, 3, 3)
    >>> some, others = (sketch(FilterBank(weight, "conv"), setting) for weight in weights)
    >>> both = some.merge(others)
    >>> both, both.sparsity(), round(both.entropy(), 2)
    (Sketch(320 kernels of 2 layers, peak ...), 0.0, 0.95)
    >>> some.drift(others).above_noise
    False
    """

    setting: SketchSetting
    _: KW_ONLY
    layers: int
    peak: float
    """The largest |weight|."""
    zeros: int
    """Kernels of zeros only."""
    sparse_2E: Tensor
    """Sparse kernels by comparison (in the order of `Comparison`) and ε, int64."""
    raw: Moments
    clean: Moments
    scaled: Moments
    scaled_clean: Moments
    counts_KB: Tensor
    """Coefficients of the scaled kernels in the setting's basis, int64."""
    filters: int = 0
    """Filters and input channels of the layers whose shape was known, and how many of them are dead."""
    dead_filters: int = 0
    channels: int = 0
    dead_channels: int = 0

    def __repr__(self) -> str:
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        return f"Sketch({self.count} kernels of {layers}, peak {self.peak:.4g})"

    @classmethod
    def none(cls, setting: SketchSetting) -> Sketch:
        """The sketch of no kernels at all, neutral in `merge`."""
        nothing = Moments.none(setting.width)
        return cls(
            setting,
            layers=0,
            peak=0.0,
            zeros=0,
            sparse_2E=torch.zeros(len(Comparison), len(setting.epsilons), dtype=torch.int64),
            raw=nothing,
            clean=nothing,
            scaled=nothing,
            scaled_clean=nothing,
            counts_KB=torch.zeros(setting.width, setting.bins, dtype=torch.int64),
        )

    @classmethod
    def merged(cls, sketches: Iterable[Sketch], *, setting: SketchSetting) -> Sketch:
        """The sketch of all of them together."""
        return reduce(cls.merge, sketches, cls.none(setting))

    def merge(self, other: Sketch) -> Sketch:
        """The sketch of the kernels of both; InputError, with what differs, where made otherwise."""
        self._require_alike(other)
        return Sketch(
            self.setting,
            layers=self.layers + other.layers,
            peak=max(self.peak, other.peak),
            zeros=self.zeros + other.zeros,
            sparse_2E=self.sparse_2E + other.sparse_2E,
            raw=self.raw.merge(other.raw),
            clean=self.clean.merge(other.clean),
            scaled=self.scaled.merge(other.scaled),
            scaled_clean=self.scaled_clean.merge(other.scaled_clean),
            counts_KB=self.counts_KB + other.counts_KB,
            filters=self.filters + other.filters,
            dead_filters=self.dead_filters + other.dead_filters,
            channels=self.channels + other.channels,
            dead_channels=self.dead_channels + other.dead_channels,
        )

    @property
    def count(self) -> int:
        """How many kernels there are."""
        return self.raw.count

    def sparsity(self, epsilon: float = 0.01, *, comparison: Comparison = Comparison.BELOW) -> float:
        """S: the share of kernels that are sparse in their layer, 0 to 1, at one of the setting's ε."""
        if epsilon not in self.setting.epsilons:
            raise InputError(
                f"sparse kernels were counted for ε = {self.setting.epsilons}, not for {epsilon}: choose one "
                "of them, or sketch again"
            )
        self._require_kernels("a sparsity")
        row, column = list(Comparison).index(comparison), self.setting.epsilons.index(epsilon)
        return int(self.sparse_2E[row, column]) / self.count

    def entropy(self, population: Population = Population.RAW) -> float:
        """H of a population, as `variance_entropy` of its kernels: 0 to log10 K."""
        self._require_kernels("an entropy")
        moments = {
            Population.RAW: self.raw,
            Population.CLEAN: self.clean,
            Population.SCALED_CLEAN: self.scaled_clean,
        }[population]
        return entropy_of_moments(moments)

    def scaled_without_zeros(self) -> Moments:
        """The scaled moments of the kernels that are not all zero."""
        kept = self.count - self.zeros
        if not self.zeros or not kept:
            return self.scaled if kept else Moments.none(self.setting.width)
        mean_K = self.scaled.mean_K * (self.count / kept)
        # Chan's update backwards: zeros have a mean of zero and no scatter.
        between_KK = torch.outer(mean_K, mean_K) * (kept * self.zeros / self.count)
        return Moments(kept, mean_K, self.scaled.scatter_KK - between_KK)

    def histogram(self, *, keep_zeros: bool = False) -> Histogram:
        """The coefficients' histogram, that of `Histogram.of` to the last kernel."""
        limits = -self.setting.range_limit, self.setting.range_limit
        if keep_zeros or not self.zeros:
            return Histogram(self.counts_KB, limits, self.setting.basis.axes)
        zero_K1 = np.zeros((self.setting.width, 1))
        bins_K1 = torch.from_numpy(self.setting.binning.decided(zero_K1))
        counts_KB = self.counts_KB.scatter_add(1, bins_K1, torch.full_like(bins_K1, -self.zeros))
        return Histogram(counts_KB, limits, self.setting.basis.axes, zeros=self.zeros)

    def basis(self, *, keep_zeros: bool = False) -> Basis:
        """The principal axes of the scaled kernels, without those of zeros; InputError without any."""
        return Basis.of_moments(self.scaled if keep_zeros else self.scaled_without_zeros())

    def drift(
        self, other: Sketch, *, basis: Basis | None = None, keep_zeros: bool = False, seed: int = 0
    ) -> Drift:
        """How far the kernels of both are apart, as `drift` says it of the kernels, and the noise floor.

        Components weigh by the shares of the setting's basis, or of another with the same axes: after one
        pass in a basis that took no data, `basis.with_shares_of(total.scaled)`.
        """
        self._require_alike(other)
        histograms = self.histogram(keep_zeros=keep_zeros), other.histogram(keep_zeros=keep_zeros)
        return drift_of_histograms(*histograms, basis or self.setting.basis, seed=seed)

    def _require_alike(self, other: Sketch) -> None:
        differences = self.setting.differences(other.setting)
        if differences:
            raise InputError(
                f"sketches that were made differently do not merge or compare; {'; '.join(differences)}: "
                "sketch both with one SketchSetting"
            )

    def _require_kernels(self, what: str) -> None:
        if not self.count:
            raise InputError(f"a sketch of no kernels has not {what}: merge sketches of layers into it first")
