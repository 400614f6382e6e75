"""The normal equations of a layer's weights: sums over batches, in float64, that merge by adding.

Shapes: G groups, n rows, K inputs and O outputs of a group; sums are kept, rows are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.observing.precision import widened
from compressor.observing.processes import merged

__all__ = ["NormalEquations", "Sums"]


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """Means over rows of products about the means: `xx` [G, K, K], `xy` [G, K, O], `yy` [G, O].

    `x` [G, K] and `y` [G, O] are the means themselves (zeros where the regression has no intercept, and
    products are about zero), `rows` how many rows there were.
    """

    xx: Tensor
    xy: Tensor
    yy: Tensor
    x: Tensor
    y: Tensor
    rows: int


class Sums:
    """Adds up batches of rows; `equations` divides them."""

    def __init__(self) -> None:
        self._sums: list[Tensor] | None = None
        self.rows = 0

    def add(self, x_GnK: Tensor, y_GnO: Tensor) -> None:
        """Take rows into the sums."""
        x, y = widened(x_GnK.detach()), widened(y_GnO.detach())
        parts = [x.mT @ x, x.mT @ y, (y * y).sum(1), x.sum(1), y.sum(1)]
        if self._sums is None:
            self._sums = parts
        else:
            for total, part in zip(self._sums, parts, strict=True):
                total += part
        self.rows += x.shape[1]

    def equations(self, *, intercept: bool) -> NormalEquations:
        """The normal equations of all rows so far, of every process that takes part."""
        assert self._sums is not None, "no row was added"
        rows = int(merged(torch.tensor(float(self.rows), dtype=torch.float64)).item())
        xx, xy, yy, x, y = (merged(total) / rows for total in self._sums)
        if not intercept:
            return NormalEquations(xx, xy, yy, torch.zeros_like(x), torch.zeros_like(y), rows)
        return NormalEquations(
            xx - x[:, :, None] * x[:, None, :], xy - x[:, :, None] * y[:, None, :], yy - y * y, x, y, rows
        )
