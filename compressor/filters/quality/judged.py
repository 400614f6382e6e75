"""What follows from a layer's sparsity, entropy and number of kernels, however these were measured."""

from __future__ import annotations

from abc import ABC

from compressor.filters.quality.entropy import effective_shapes
from compressor.filters.quality.threshold import RandomThreshold, entropy_ratio
from compressor.filters.quality.verdicts import Bounds, Verdict, is_degenerate, verdicts

__all__ = ["JudgedLayer"]


class JudgedLayer(ABC):
    """A layer with its S, H, number of kernels and threshold: measured of kernels, or of a sketch of them."""

    sparsity: float
    entropy: float
    count: int
    threshold: RandomThreshold | None
    bounds: Bounds

    @property
    def entropy_ratio(self) -> float | None:
        """H / T_H of all kernels."""
        return entropy_ratio(self.entropy, self.count, self.threshold) if self.threshold else None

    @property
    def effective_shapes(self) -> float:
        """10^H of all kernels, 1 to K."""
        return effective_shapes(self.entropy)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """All that holds of the layer, the gravest first."""
        return verdicts(self.sparsity, self.entropy, self.count, self.threshold, bounds=self.bounds)

    @property
    def degenerate(self) -> bool | None:
        """The published combined rule; None where the kernels are too few for it."""
        return is_degenerate(self.sparsity, self.entropy, self.count, self.threshold, bounds=self.bounds)
