"""Where files are kept that are made or fetched once for a user: measured tables, fetched runtimes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """$COMPRESSOR_CACHE, by default `compressor` in $XDG_CACHE_HOME, which by default is ~/.cache.

    >>> cache_folder().is_absolute()
    True
    """
    named, home = os.environ.get("COMPRESSOR_CACHE"), os.environ.get("XDG_CACHE_HOME")
    folder = Path(named) if named else (Path(home) if home else Path.home() / ".cache") / "compressor"
    return folder.absolute()
