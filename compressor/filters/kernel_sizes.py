"""Sizes of kernels: how they are said, and which are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.errors import InputError

__all__ = ["KernelSize", "check_wanted", "is_wanted", "size_words"]

KernelSize = int | Sequence[int] | None
"""One length for all axes, a length for each, or any size."""


def size_words(size: Sequence[int]) -> str:
    """A size in words.

    >>> size_words((3, 3))
    '3 x 3'
    """
    return " x ".join(map(str, size))


def check_wanted(kernel_size: KernelSize) -> None:
    """Raise InputError for what is no length, no lengths, and not None."""
    lengths = [kernel_size] if isinstance(kernel_size, int) else kernel_size
    if lengths is None:
        return
    if not isinstance(lengths, Sequence) or not lengths or not all(map(_is_length, lengths)):
        raise InputError(
            f"kernel_size is a tuple of positive lengths such as (3, 3), one length for all axes, or None, "
            f"got {kernel_size!r}"
        )


def is_wanted(size: Sequence[int], kernel_size: KernelSize) -> bool:
    """Whether a kernel of that size is one of those asked for.

    >>> is_wanted((3, 3), 3), is_wanted((3, 3), (3, 1)), is_wanted((5,), None)
    (True, False, True)
    """
    if isinstance(kernel_size, int):
        return set(size) == {kernel_size}
    return kernel_size is None or tuple(size) == tuple(kernel_size)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
