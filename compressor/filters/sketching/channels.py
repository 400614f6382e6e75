"""Which filters and input channels of a layer are dead, found as its kernels pass by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compressor.errors import InputError

__all__ = ["ChannelTally"]

# Legend of shape suffixes: O filters, I input channels of a filter, G groups, N kernels of a chunk.


class ChannelTally:
    """Filters [O] and input channels [G, I] of which some kernel is not sparse; see `dead_filters`.

    >>> tally = ChannelTally((2, 3), groups=1)
    >>> tally.add(np.array([True, False]))
    >>> tally.add(np.array([True, True, True, True]))
    >>> tally.dead("conv1")
    {'filters': 2, 'dead_filters': 1, 'channels': 3, 'dead_channels': 2}
    """

    def __init__(self, shape: tuple[int, int], groups: int) -> None:
        self._filters, self._inputs = shape
        self._per_group = self._filters // groups
        self._alive_O = np.zeros(self._filters, dtype=bool)
        self._alive_GI = np.zeros((groups, self._inputs), dtype=bool)
        self._next = 0

    def add(self, sparse_N: npt.NDArray[np.bool_]) -> None:
        """Take in which of the next kernels are sparse."""
        first, lead = divmod(self._next, self._inputs)
        self._next += len(sparse_N)
        last = -(-self._next // self._inputs)
        if last > self._filters:
            return  # refused in the end, with the count
        alive_OI = np.zeros((last - first, self._inputs), dtype=bool)
        alive_OI.ravel()[lead : lead + len(sparse_N)] = ~sparse_N
        self._alive_O[first:last] |= alive_OI.any(axis=1)
        group = first // self._per_group
        for start in range(group * self._per_group, last, self._per_group):
            rows_OI = alive_OI[max(0, start - first) : start + self._per_group - first]
            self._alive_GI[start // self._per_group] |= rows_OI.any(axis=0)

    def dead(self, named: str) -> dict[str, int]:
        """The counts, by the names that `Sketch` has for them; InputError where kernels are missing."""
        if self._next != self._filters * self._inputs:
            raise InputError(
                f"{named}: {self._next} kernels are not the {self._filters} x {self._inputs} of its shape"
            )
        return {
            "filters": self._alive_O.size,
            "dead_filters": int((~self._alive_O).sum()),
            "channels": self._alive_GI.size,
            "dead_channels": int((~self._alive_GI).sum()),
        }
