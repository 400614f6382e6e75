"""What a sketch says of the filters of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from compressor.filters.quality.judged import JudgedLayer
from compressor.filters.quality.populations import Population
from compressor.filters.quality.threshold import RandomThreshold
from compressor.filters.quality.threshold_table import threshold_for
from compressor.filters.quality.verdicts import Bounds
from compressor.filters.sketching.sketch import Sketch

__all__ = ["SketchQuality", "quality_of_sketch"]


@dataclass(frozen=True, repr=False)
class SketchQuality(JudgedLayer):
    """The measures of `Quality` that follow from a sketch, under the same names.

    What compares filters with each other (orthogonality, duplicates) needs the filters. `dead_filters` and
    `dead_channels` are numbers here, of `filters` and `channels`, and 0 of 0 where shapes were not known. Of
    several layers together: S is the share of kernels that are sparse in their layer, H that of all kernels.
    """

    name: str
    _: KW_ONLY
    count: int
    zeros: int
    sparsity: float
    sparsities: dict[float, float]
    clean_count: int
    entropy: float
    entropy_clean: float
    entropy_scaled_clean: float
    threshold: RandomThreshold | None
    filters: int
    dead_filters: int
    channels: int
    dead_channels: int
    bounds: Bounds

    def __repr__(self) -> str:
        return f"SketchQuality({self.name}: {', '.join(verdict.value for verdict in self.verdicts)})"


def quality_of_sketch(
    sketch: Sketch, name: str, *, kernel_size: Sequence[int], bounds: Bounds | None = None
) -> SketchQuality:
    """The measures of a sketch; S is that at the setting's ε of clean kernels, by its comparison.

    Raises InputError for a sketch of no kernels.

    >>> import torch
    >>> from compressor.filters import FilterBank
    >>> from compressor.filters.sketching import SketchSetting, sketch
    >>> from compressor.filters.basis import Basis
    >>> bank = FilterBank(torch.randn(64, 32, 3, 3, generator=torch.manual_seed(0)), "conv1")
    >>> setting = SketchSetting(Basis.cosines((3, 3)))
    >>> quality_of_sketch(sketch(bank, setting), "conv1", kernel_size=(3, 3))
    SketchQuality(conv1: random)
    """
    setting = sketch.setting
    entropies = {population: sketch.entropy(population) for population in Population}
    return SketchQuality(
        name,
        count=sketch.count,
        zeros=sketch.zeros,
        sparsity=(sketch.count - sketch.clean.count) / sketch.count,
        sparsities={
            epsilon: sketch.sparsity(epsilon, comparison=setting.comparison) for epsilon in setting.epsilons
        },
        clean_count=sketch.clean.count,
        entropy=entropies[Population.RAW],
        entropy_clean=entropies[Population.CLEAN],
        entropy_scaled_clean=entropies[Population.SCALED_CLEAN],
        threshold=threshold_for(kernel_size),
        filters=sketch.filters,
        dead_filters=sketch.dead_filters,
        channels=sketch.channels,
        dead_channels=sketch.dead_channels,
        bounds=bounds or Bounds(),
    )
