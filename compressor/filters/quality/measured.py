"""Everything that is measured of one layer's filters, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields

from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import FilterBank, checked_weight
from compressor.filters.kernel_sizes import size_words
from compressor.filters.quality.dead import sparse_rows_and_columns
from compressor.filters.quality.duplicates import Duplicates, duplicates_and_orthogonality
from compressor.filters.quality.entropy import entropy_of_kernels
from compressor.filters.quality.judged import JudgedLayer
from compressor.filters.quality.norms import Norms, norms
from compressor.filters.quality.populations import Population
from compressor.filters.quality.sparsity import EPSILONS, Comparison, sparse_kernels, sparsities
from compressor.filters.quality.threshold import RandomThreshold, entropy_ratio
from compressor.filters.quality.threshold_table import threshold_for
from compressor.filters.quality.verdicts import Bounds, Verdict

__all__ = ["Quality", "quality"]


@dataclass(frozen=True, eq=False, repr=False)
class Quality(JudgedLayer):
    """The measures of one bank of filters; see the function of each name for what it is.

    `sparsity` is S at `epsilon`, `sparsities` at several ε. The entropies are of the populations raw, clean
    and scaled clean, of which the last two have `clean_count` kernels. `threshold` is None for kernels of
    one element or of so many that no threshold is known; then there is no ratio and no verdict on
    diversity. `orthogonality` is None where fewer than two filters are not zero.
    """

    name: str
    _: KW_ONLY
    kernel_size: tuple[int, ...]
    filters: int
    channels: int
    """Input channels of the layer, those of all groups."""
    groups: int
    count: int
    """Kernels, n."""
    epsilon: float
    sparsity: float
    sparsities: dict[float, float]
    clean_count: int
    entropy: float
    entropy_clean: float
    entropy_scaled_clean: float
    threshold: RandomThreshold | None
    orthogonality: float | None
    dead_filters: tuple[int, ...]
    dead_channels: tuple[int, ...]
    duplicates: Duplicates
    norms: Norms
    bounds: Bounds

    @property
    def random_threshold(self) -> float | None:
        """T_H(n)."""
        return self.threshold(self.count) if self.threshold else None

    @property
    def entropy_ratio_clean(self) -> float | None:
        """H / T_H of the kernels that are not sparse, with their number."""
        return entropy_ratio(self.entropy_clean, self.clean_count, self.threshold) if self.threshold else None

    @property
    def verdict(self) -> Verdict:
        """The gravest of the verdicts."""
        return self.verdicts[0]

    def __repr__(self) -> str:
        return f"Quality({self.name}: {', '.join(verdict.value for verdict in self.verdicts)})"

    def __str__(self) -> str:
        size = size_words(self.kernel_size)
        dead = f"{len(self.dead_filters)} filters, {len(self.dead_channels)} input channels"
        return "\n".join(
            [
                f"{self.name}: {self.filters} filters of {self.channels // self.groups} kernels of {size}",
                f"  verdict        {', '.join(verdict.value for verdict in self.verdicts)}",
                f"  sparsity       {self.sparsity:.4f} at {self.epsilon:g} of the largest weight",
                f"  entropy        {self.entropy:.4f}, {_of_threshold(self)}",
                f"  orthogonality  {_number(self.orthogonality)}",
                f"  dead           {dead}",
                f"  duplicates     {self.duplicates.count} pairs with |cos| >= {self.duplicates.above:g}",
            ]
        )

    def as_row(self) -> dict[str, object]:
        """Plain numbers and words by column, for tables: None where something is not defined."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in (
            "sparsities",
            "threshold",
            "duplicates",
            "norms",
            "bounds",
            "dead_filters",
            "dead_channels",
        ):
            del plain[name]
        return plain | {
            "kernel_size": "x".join(map(str, self.kernel_size)),
            **{f"sparsity_{epsilon:g}": share for epsilon, share in self.sparsities.items()},
            "random_threshold": self.random_threshold,
            "entropy_ratio": self.entropy_ratio,
            "entropy_ratio_clean": self.entropy_ratio_clean,
            "effective_shapes": self.effective_shapes,
            "dead_filters": len(self.dead_filters),
            "dead_channels": len(self.dead_channels),
            "duplicate_pairs": self.duplicates.count,
            "largest_cosine": float(self.duplicates.largest_O.max()),
            "norm_l1": self.norms.l1,
            "norm_l2": self.norms.l2,
            "degenerate": self.degenerate,
            "verdicts": ", ".join(verdict.value for verdict in self.verdicts),
        }


def quality(
    bank: FilterBank | Tensor,
    *,
    epsilon: float = 0.01,
    comparison: Comparison = Comparison.BELOW,
    epsilons: Sequence[float] = EPSILONS,
    threshold: RandomThreshold | None = None,
    duplicates_above: float = 0.95,
    bounds: Bounds | None = None,
) -> Quality:
    """All measures of one bank, or of a weight [O, I, *k] of one group.

    `threshold` is in place of the one known for the kernel size (`threshold_for`): say, one fitted for
    large kernels. On weights as they lie in the module, or with batch norm folded in, as the bank has it:
    the two are not comparable. Everything stays on the weight's device but K×K sums. Raises InputError for
    what is not floating, empty or not finite, with the bank's name.

    >>> import torch
    >>> measured = quality(torch.randn(16, 8, 3, 3, generator=torch.manual_seed(0)))
    >>> measured
    Quality(weight: random)
    >>> print(measured)
    weight: 16 filters of 8 kernels of 3 x 3
      verdict        random
      sparsity       0.0000 at 0.01 of the largest weight
      entropy        0.9362, 1.004 of random kernels'; as 8.6 shapes
      orthogonality  0.9128
      dead           0 filters, 0 input channels
      duplicates     0 pairs with |cos| >= 0.95
    """
    if not isinstance(bank, FilterBank):
        bank = FilterBank(checked_weight(bank, "the weight"), "weight")
    kernels_NK = bank.kernels
    elements = kernels_NK.shape[1]
    if threshold is not None and threshold.elements != elements:
        raise InputError(
            f"{bank.name}: the threshold is for kernels of {threshold.elements} elements, these have "
            f"{elements}; fit_random_threshold({elements}) makes one"
        )
    sparse_N = sparse_kernels(kernels_NK, epsilon=epsilon, comparison=comparison)
    dead_O, dead_I = sparse_rows_and_columns(sparse_N, len(bank.weight), groups=bank.groups)
    sparse = int(sparse_N.sum())
    entropies = {
        which: entropy_of_kernels(which.without(kernels_NK, sparse_N))
        for which in Population
        if sparse or which is not Population.CLEAN
    }
    twins, orthogonal = duplicates_and_orthogonality(bank.weight, above=duplicates_above, groups=bank.groups)
    return Quality(
        bank.name,
        kernel_size=bank.kernel_size,
        filters=len(bank.weight),
        channels=bank.weight.shape[1] * bank.groups,
        groups=bank.groups,
        count=bank.count,
        epsilon=epsilon,
        sparsity=sparse / bank.count,
        sparsities=sparsities(kernels_NK, epsilons=epsilons, comparison=comparison),
        clean_count=bank.count - sparse,
        entropy=entropies[Population.RAW],
        entropy_clean=entropies.get(Population.CLEAN, entropies[Population.RAW]),
        entropy_scaled_clean=entropies[Population.SCALED_CLEAN],
        threshold=threshold or threshold_for(bank.kernel_size),
        orthogonality=orthogonal,
        dead_filters=_where(dead_O),
        dead_channels=_where(dead_I),
        duplicates=twins,
        norms=norms(bank.weight),
        bounds=bounds or Bounds(),
    )


def _where(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _of_threshold(measured: Quality) -> str:
    ratio = measured.entropy_ratio
    said = "no threshold" if ratio is None else f"{ratio:.3f} of random kernels'"
    return f"{said}; as {measured.effective_shapes:.1f} shapes"
