"""What a report says of one convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compressor.filters.bank import FilterBank
from compressor.filters.drift import Drift
from compressor.filters.histograms import Histogram
from compressor.filters.phenotypes import Phenotype
from compressor.filters.quality import Quality

__all__ = ["LayerReport"]


@dataclass(frozen=True, eq=False, repr=False)
class LayerReport:
    """A bank, its measures, and how it stands to the reference of the report.

    Kernels of one element have no shapes: entropy, its ratio and `effective_shapes` are None there. `drift`,
    `histogram` and `phenotype` are None for kernels of another size than the basis of the report, `drift`
    also for layers of zeros.
    """

    bank: FilterBank
    quality: Quality
    phenotype: Phenotype | None = None
    histogram: Histogram | None = None
    drift: Drift | None = None

    def __repr__(self) -> str:
        return f"LayerReport({self.bank.name}: {self.verdict_words})"

    @property
    def has_shapes(self) -> bool:
        """Whether kernels have more than one element."""
        return self.bank.kernels.shape[1] > 1

    @property
    def entropy(self) -> float | None:
        """H, the variance entropy of all kernels."""
        return self.quality.entropy if self.has_shapes else None

    @property
    def entropy_ratio(self) -> float | None:
        """H / T_H(n); None too where there are too few kernels for it to mean something."""
        threshold = self.quality.threshold
        if threshold is None or not threshold.judges(self.bank.count):
            return None
        return self.quality.entropy_ratio

    @property
    def effective_shapes(self) -> float | None:
        """10^H, from one shape to as many as a kernel has elements."""
        return self.quality.effective_shapes if self.has_shapes else None

    @property
    def largest_cosine(self) -> float:
        """The largest |cos| of two filters of a group; 0 where there is no pair."""
        return float(self.quality.duplicates.largest_O.max())

    @property
    def verdict_words(self) -> str:
        """The verdicts in words, and `degenerate` where the published combined rule says so."""
        words = [verdict.value for verdict in self.quality.verdicts]
        return ", ".join([*words, *(["degenerate"] if self.quality.degenerate else [])])

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, ready for JSON: None where something is not defined."""
        bank, measured = self.bank, self.quality
        return {
            "name": bank.name,
            "layer_id": bank.layer_id,
            "conv_depth": bank.conv_depth,
            "conv_depth_norm": bank.conv_depth_norm,
            "shape": list(bank.weight.shape),
            "groups": bank.groups,
            "transposed": bank.transposed,
            "folded": bank.folded,
            "kernels": bank.count,
            "sparsity": {f"{epsilon:g}": share for epsilon, share in measured.sparsities.items()},
            "entropy": self.entropy,
            "entropy_clean": measured.entropy_clean if self.has_shapes else None,
            "entropy_scaled_clean": measured.entropy_scaled_clean if self.has_shapes else None,
            "random_threshold": measured.random_threshold,
            "entropy_ratio": self.entropy_ratio,
            "effective_shapes": self.effective_shapes,
            "orthogonality": measured.orthogonality,
            "dead_filters": list(measured.dead_filters),
            "dead_channels": list(measured.dead_channels),
            "largest_cosine": self.largest_cosine,
            "duplicate_pairs": measured.duplicates.count,
            "duplicates": [list(pair) for pair in measured.duplicates.pairs],
            "norm_l1": measured.norms.l1,
            "norm_l2": measured.norms.l2,
            "verdicts": [verdict.value for verdict in measured.verdicts],
            "degenerate": measured.degenerate,
            "phenotype": self.phenotype.value if self.phenotype else None,
            "drift": self.drift.value if self.drift else None,
            "drift_floor": self.drift.noise.high if self.drift else None,
        }
