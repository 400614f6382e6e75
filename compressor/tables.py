"""Plain text tables with aligned columns."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["aligned", "megabytes"]


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1, words_last: bool = False) -> list[str]:
    """One line for each row; the first `left` columns are flush left, the others flush right.

    With `words_last` the last column is flush left, too.

    >>> aligned([["layer", "MACs"], ["conv1", "1,024"]])
    ['layer   MACs', 'conv1  1,024']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1 if words_last else None
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if position < left or position == last else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def megabytes(count: int) -> str:
    """A number of bytes in words, in powers of ten.

    >>> megabytes(44_700_000), megabytes(1_500), megabytes(12)
    ('44.70 MB', '1.50 kB', '12 B')
    """
    if count < 1_000:
        return f"{count} B"
    return f"{count / 1e3:.2f} kB" if count < 1_000_000 else f"{count / 1e6:.2f} MB"
