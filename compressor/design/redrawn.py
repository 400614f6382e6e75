"""Which filters of a layer were drawn anew."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Redrawn"]

# So many indices are printed.
_SHOWN = 8


@dataclass(frozen=True)
class Redrawn:
    """The `filters` of a layer, by index, that were drawn anew, of so many.

    >>> print(Redrawn("layer1.conv1", (0, 5), 16))
    layer1.conv1: 2 of 16 filters (0, 5)
    """

    layer: str
    filters: tuple[int, ...]
    of: int

    def __str__(self) -> str:
        more = ", ..." if len(self.filters) > _SHOWN else ""
        shown = ", ".join(map(str, self.filters[:_SHOWN]))
        return f"{self.layer}: {len(self.filters)} of {self.of} filters ({shown}{more})"
