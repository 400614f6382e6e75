"""Count, mean and scatter of rows, merged from any parts: what principal axes need of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["Moments"]


@dataclass(frozen=True, repr=False, eq=False)
class Moments:
    """The first two moments of the rows of a matrix [n, K], in float64 on the CPU.

    Those of two matrices `merge` to those of both, in any order and grouping up to rounding, so that a
    thousand parts of a data set can be measured apart.

    *Source: T. F. Chan, G. H. Golub, R. J. LeVeque, 1979, Updating formulae and a pairwise algorithm for
    computing sample variances.*

    >>> rows = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    >>> both = Moments.of(rows[:1]).merge(Moments.of(rows[1:]))
    >>> both, both.covariance.tolist()
    (Moments(3 rows of 2), [[4.0, 0.0], [0.0, 0.0]])
    """

    count: int
    mean_K: Tensor
    scatter_KK: Tensor
    """Σ (x − mean)(x − mean)ᵀ over the rows x."""

    def __post_init__(self) -> None:
        width = len(self.mean_K)
        if self.count < 0 or self.mean_K.shape != (width,) or self.scatter_KK.shape != (width, width):
            raise InputError(
                f"moments are a count, a mean [K] and a scatter [K, K], got {self.count}, "
                f"{list(self.mean_K.shape)} and {list(self.scatter_KK.shape)}"
            )

    def __repr__(self) -> str:
        return f"Moments({self.count} rows of {self.width})"

    @classmethod
    def none(cls, width: int) -> Moments:
        """The moments of no rows at all, neutral in `merge`."""
        zeros = torch.zeros(width, dtype=torch.float64)
        return cls(0, zeros, torch.outer(zeros, zeros))

    @classmethod
    def of(cls, rows_NK: Tensor, *, at_once: int = 1 << 16) -> Moments:
        """The moments of a matrix [n, K], of which `at_once` rows are held in float64 at a time."""
        if rows_NK.ndim != 2:
            raise InputError(f"moments are taken of a matrix [n, K], got {list(rows_NK.shape)}")
        return cls.merged(map(_of_part, rows_NK.split(at_once)), width=rows_NK.shape[1])

    @classmethod
    def merged(cls, parts: Iterable[Moments], *, width: int) -> Moments:
        """The moments of all rows of all parts together."""
        total = cls.none(width)
        for part in parts:
            total = total.merge(part)
        return total

    def merge(self, other: Moments) -> Moments:
        """The moments of the rows of both."""
        if self.width != other.width:
            raise InputError(f"moments of rows of {self.width} and of {other.width} do not merge")
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean_K - self.mean_K
        mean = self.mean_K + apart * (other.count / count)
        between = torch.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter_KK + other.scatter_KK + between)

    @property
    def width(self) -> int:
        """The length of a row, K."""
        return len(self.mean_K)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance [K, K]; InputError for fewer than two rows."""
        if self.count < 2:
            raise InputError(f"a covariance takes two rows or more, got {self.count}")
        return self.scatter_KK / (self.count - 1)

    @property
    def spectrum(self) -> Tensor:
        """Σ (x − mean)² along each principal axis [K], descending, the rounding below 0 taken away.

        These are the squared singular values of the centred matrix.
        """
        variances: Tensor = torch.linalg.eigvalsh(self.scatter_KK)
        return variances.flip(0).clamp(min=0)


def _of_part(rows: Tensor) -> Moments:
    # Where the rows are, but for devices without float64: only the sums travel.
    rows = rows.detach().cpu() if rows.device.type == "mps" else rows.detach()
    wide = rows.to(torch.float64)
    if not len(wide):
        return Moments.none(wide.shape[1])
    mean = wide.mean(dim=0)
    centred = wide - mean
    return Moments(len(wide), mean.cpu(), (centred.T @ centred).cpu())
