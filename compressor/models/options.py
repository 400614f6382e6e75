"""Checks of the options that the networks share."""

from __future__ import annotations

from compressor.errors import InputError

__all__ = ["require_positive"]


def require_positive(where: str, **sizes: int) -> None:
    """Nothing, if every one of `sizes` is an integer of at least 1; else raises InputError.

    >>> require_positive("ResNetCifar", n_classes=10, width=0)
    Traceback (most recent call last):
        ...
    compressor.errors.InputError: ResNetCifar: width must be an integer of at least 1, got 0
    """
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"{where}: {name} must be an integer of at least 1, got {size!r}")
