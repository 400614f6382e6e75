"""The widths at which a layer is measured, and how widths fall into classes between them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "NARROW", "grid", "off_grid", "residue_class", "up"]

# The largest block of channels that CPU kernels work in: AVX-512 holds 16 floats.
BLOCK = 16
_POINTS = 5
_WIDE = 64
NARROW = 4
_SMALL = (4, 8, 12)  # narrower than a block, kernels may take another path


def grid(width: int, step: int = 1) -> tuple[int, ...]:
    """The widths, ascending, at which a layer of `width` channels is measured, all multiples of `step`.

    >>> grid(64), grid(3), grid(160)
    ((4, 8, 12, 16, 32, 48, 64), (1, 3), (8, 16, 32, 64, 96, 128, 160))
    """
    block = math.lcm(step, BLOCK)
    if width <= _SMALL[1]:
        points = {width, max(step, width // 2 // step * step), step}
    else:
        points = {width, *((round(width * i / _POINTS) // block) * block for i in range(1, _POINTS))}
        narrow = _SMALL if width <= _WIDE else _SMALL[1:2]
        points |= {p for p in (*(small // step * step for small in narrow), block) if 0 < p < width}
    return tuple(sorted(p for p in points if p > 0))


def off_grid(width: int, granule: int, generator: np.random.Generator) -> int | None:
    """A width below `width` that is a multiple of `granule` and of no larger power of two up to the block.

    None where there is none of at least a block.
    """
    found = [c for c in range(BLOCK + 1, width) if residue_class(np.array(c)) == granule]
    return int(generator.choice(found)) if found else None


def residue_class(width: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The largest power of two up to the block that divides each width.

    >>> residue_class(np.array([64, 63, 60, 24])).tolist()
    [16, 1, 4, 8]
    """
    return np.asarray(np.gcd(width, BLOCK))


def up(width: npt.NDArray[np.int64], whole: int) -> npt.NDArray[np.int64]:
    """Each width rounded up to whole blocks, or to `whole` where that is less."""
    return np.minimum(-(-width // BLOCK) * BLOCK, whole)
