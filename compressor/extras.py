"""Optional libraries, imported only when something needs them."""

from __future__ import annotations

import importlib
import pickle
from types import ModuleType

from compressor.errors import MissingExtraError

__all__ = ["imported", "pickler"]


def imported(
    module: str, *, extra: str, needed_for: str, package: str | None = None, install: str | None = None
) -> ModuleType:
    """The module of that name; raises MissingExtraError with the command that installs its extra.

    `package` is what it is called where that is not the module's name; `install` is what pip has to be
    given where that is not the extra.

    >>> imported("json", extra="images", needed_for="reading images").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        named = package or module.partition(".")[0]
        command = install or f"'compressor[{extra}]'"
        raise MissingExtraError(
            f"{needed_for} needs {named}, which cannot be imported ({error}): pip install {command}"
        ) from error


def pickler() -> ModuleType:
    """Cloudpickle where it is installed, which takes functions and classes of a script along; else pickle."""
    try:
        return importlib.import_module("cloudpickle")
    except ImportError:
        return pickle
