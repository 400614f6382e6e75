"""Filters along the principal axes of what a layer reads, and the rows of its ZCA whitening."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from compressor.design.layer import Part
from compressor.design.learnt import Learnt
from compressor.design.whitening import Whitening
from compressor.errors import InputError
from compressor.filters import Moments

__all__ = ["PCA", "ZCA"]


@dataclass(frozen=True)
class PCA(Learnt):
    """The principal axes of the windows that a layer reads, largest variance first, each of norm `gain`.

    The filters are orthogonal and their outputs uncorrelated (where the layer reads within its inputs). An
    axis has no sign: its largest weight is made positive. At most I * k filters can be drawn, and no more
    than axes with any variance.

    *Source: T.-H. Chan et al., 2015, PCANet, arXiv 1404.3606, section II-A.* Departure: the mean of all
    windows is taken away, not that of each.

    Raises InputError where more filters are asked for, or there are fewer windows than filters.

    >>> from compressor.design import initialise_
    >>> conv = torch.nn.Conv2d(3, 8, 5)
    >>> initialise_(conv, PCA([torch.rand(64, 3, 16, 16)]))
    (Redrawn(layer='Conv2d', filters=(0, 1, 2, 3, 4, 5, 6, 7), of=8),)
    """

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The first n axes."""
        windows = self.read(part, generator).flatten(1)
        _check_count("PCA", part, windows)
        variances, axes = torch.linalg.eigh(Moments.of(windows).covariance)
        rows, variances = axes.T.flip(0), variances.flip(0)
        # Float32 inputs leave about so much of the largest variance along an axis that has none.
        some = int((variances > variances[0] * torch.finfo(torch.float32).eps * part.size).sum())
        if part.count > some:
            raise InputError(
                f"PCA: {part.layer.name} takes {part.count} filters, and what it reads varies along {some} "
                f"of {part.size} directions only; give other data, or draw with Orthogonal()"
            )
        rows = rows[: part.count]
        largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
        return self.filters(part, rows * largest.sign())


@dataclass(frozen=True)
class ZCA(Learnt):
    """Rows of the ZCA whitening of what a layer reads: each tells one input from its surroundings.

    Row j gives the whitened input j; those of the middle of the window come first, all channels of a
    position before the next one. `epsilon` is the share of the mean variance that is added to all, see
    `Whitening`. Each filter is scaled to norm `gain`, so outputs are whitened up to a scale of each.

    *Source: A. Bell, T. Sejnowski, 1997, The independent components of natural scenes are edge filters.*

    Raises InputError for more than I * k filters, or fewer windows than filters.

    >>> from compressor.design import initialise_
    >>> conv = torch.nn.Conv2d(3, 3, 3)
    >>> _ = initialise_(conv, ZCA([torch.rand(64, 3, 16, 16)]))
    >>> conv.weight[1].abs().argmax().item()  # channel 1, the middle of 3 x 3
    13
    """

    _: KW_ONLY
    epsilon: float = 1e-2

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The n rows nearest to the middle."""
        windows = self.read(part, generator).flatten(1)
        _check_count("ZCA", part, windows)
        rows = Whitening.of(windows, epsilon=self.epsilon).matrix_KK
        return self.filters(part, rows[_from_the_middle(part)[: part.count].to(rows.device)])


def _check_count(name: str, part: Part, windows: Tensor) -> None:
    if part.count > part.size:
        raise InputError(
            f"{name}: {part.layer.name} takes {part.count} filters, and there are only {part.size} "
            "directions (input channels times taps); draw with KMeans() or Orthogonal()"
        )
    if len(windows) <= part.count:
        raise InputError(
            f"{name}: {len(windows)} windows for {part.count} filters of {part.layer.name}, expected more "
            "windows than filters; give more examples, or more windows of each (per_example)"
        )


def _from_the_middle(part: Part) -> Tensor:
    """The positions of a window [I * k], those near its middle first, channels of one position together."""
    away = torch.zeros(1)
    for size in part.kernel_size:
        along = (torch.arange(size) - (size - 1) / 2).square()
        away = (away[:, None] + along).flatten()
    taps = math.prod(part.kernel_size)
    order = torch.argsort(away, stable=True)
    return (order[:, None] + taps * torch.arange(part.channels)).flatten()
