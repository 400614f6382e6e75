"""The shapes that kernels are made of: the filters of a basis, and how much of the variance each explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.filters.basis import Basis
from compressor.filters.figures.canvas import grid
from compressor.filters.figures.pictures import draw_kernel, picture_shape
from compressor.filters.kernel_sizes import size_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["basis_figure"]


def basis_figure(
    basis: Basis, *, kernel_size: Sequence[int] = (3, 3), at_most: int = 24, title: str = "Basis"
) -> Figure:
    """A figure of the mean kernel and of the shapes with the most variance, `at_most` of them.

    Above each stands the share of the variance that it explains. Blue is negative, red positive, white 0;
    the shapes share one scale of colours, the mean has its own, which it tells. Kernels of one dimension are
    a row, those of three stand as slices side by side. Raises InputError where `kernel_size` is not the
    basis'.

    >>> basis_figure(Basis.cosines((3, 3))).axes[1].get_title()
    'v0: 11.1 %'
    """
    if math.prod(kernel_size) != basis.width:
        raise InputError(
            f"kernels of {size_words(kernel_size)} have {math.prod(kernel_size)} elements, those "
            f"of basis {basis.identity} {basis.width}: give the kernel size it was made for"
        )
    count = min(at_most, basis.width)
    rows, columns = picture_shape(kernel_size)
    figure, panels = grid(count + 1, 5, width=1.35, height=0.3 + 1.2 * min(rows / columns, 2), title=title)
    largest = float(basis.mean_K.abs().max())
    draw_kernel(panels[0], basis.mean_K.reshape(*kernel_size), limit=largest or 1.0)
    panels[0].set_title(f"mean (±{largest:.2f})", fontsize=8)
    limit = float(basis.components_KK[:count].abs().max())
    for place, panel in enumerate(panels[1:]):
        draw_kernel(panel, basis.components_KK[place].reshape(*kernel_size), limit=limit)
        panel.set_title(f"v{place}: {100 * float(basis.shares_K[place]):.1f} %", fontsize=8)
    return figure
