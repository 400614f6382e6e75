"""Optional libraries of data sets, imported only when a file of their kind is read."""

from __future__ import annotations

import importlib
from types import ModuleType

from compressor.errors import MissingExtraError

__all__ = ["imported"]


def imported(module: str, *, extra: str, needed_for: str) -> ModuleType:
    """The module of that name; raises MissingExtraError with the command that installs its extra.

    >>> imported("json", extra="images", needed_for="reading images").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{needed_for} needs {module.partition('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'compressor[{extra}]'"
        ) from error
