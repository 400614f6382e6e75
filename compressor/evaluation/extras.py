"""Optional dependencies, imported only when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from compressor.errors import MissingExtraError

__all__ = ["require", "require_metrics"]


def require(
    module: str, *, package: str, needed_for: str = "evaluation", install: str = "'compressor[metrics]'"
) -> ModuleType:
    """The module of that name; raises MissingExtraError, with the command that helps, where it is absent.

    >>> require("json", package="json").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{needed_for} needs {package}, which cannot be imported ({error}): pip install {install}"
        ) from error


def require_metrics() -> None:
    """Raise MissingExtraError, with the command that helps, where scikit-learn or SciPy is absent."""
    for name, package in (("scipy", "scipy"), ("sklearn", "scikit-learn")):
        require(name, package=package)
