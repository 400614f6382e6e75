"""What the filters of one layer are worth: pure functions, and one value of them all."""

from compressor.filters.quality.dead import dead_channels, dead_filters, sparse_rows_and_columns
from compressor.filters.quality.duplicates import Duplicates, duplicates
from compressor.filters.quality.entropy import (
    effective_shapes,
    entropy_of_kernels,
    entropy_of_moments,
    entropy_of_spectrum,
    variance_entropy,
)
from compressor.filters.quality.measured import Quality, quality
from compressor.filters.quality.norms import Norms, norms
from compressor.filters.quality.orthogonality import orthogonality, published_orthogonality
from compressor.filters.quality.populations import Population
from compressor.filters.quality.random_layers import least_random_entropy, random_entropies
from compressor.filters.quality.sparsity import (
    EPSILONS,
    Comparison,
    sparse_kernels,
    sparse_peaks,
    sparsities,
    sparsity,
)
from compressor.filters.quality.threshold import RandomThreshold, entropy_ratio
from compressor.filters.quality.threshold_fit import fit_random_threshold
from compressor.filters.quality.threshold_table import PUBLISHED_THRESHOLD, random_threshold, threshold_for
from compressor.filters.quality.verdicts import Bounds, Verdict, is_degenerate, verdicts

__all__ = [
    "EPSILONS",
    "PUBLISHED_THRESHOLD",
    "Bounds",
    "Comparison",
    "Duplicates",
    "Norms",
    "Population",
    "Quality",
    "RandomThreshold",
    "Verdict",
    "dead_channels",
    "dead_filters",
    "duplicates",
    "effective_shapes",
    "entropy_of_kernels",
    "entropy_of_moments",
    "entropy_of_spectrum",
    "entropy_ratio",
    "fit_random_threshold",
    "is_degenerate",
    "least_random_entropy",
    "norms",
    "orthogonality",
    "published_orthogonality",
    "quality",
    "random_entropies",
    "random_threshold",
    "sparse_kernels",
    "sparse_peaks",
    "sparse_rows_and_columns",
    "sparsities",
    "sparsity",
    "threshold_for",
    "variance_entropy",
    "verdicts",
]
