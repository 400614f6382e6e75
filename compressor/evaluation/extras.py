"""Optional dependencies, imported only when they are needed."""

from __future__ import annotations

from types import ModuleType

from compressor.extras import imported

__all__ = ["require", "require_metrics"]


def require(
    module: str, *, package: str, needed_for: str = "evaluation", install: str = "'compressor[metrics]'"
) -> ModuleType:
    """The module of that name; raises MissingExtraError, with the command that helps, where it is absent.

    >>> require("json", package="json").__name__
    'json'
    """
    return imported(module, package=package, extra="metrics", needed_for=needed_for, install=install)


def require_metrics() -> None:
    """Raise MissingExtraError, with the command that helps, where scikit-learn or SciPy is absent."""
    for name, package in (("scipy", "scipy"), ("sklearn", "scikit-learn")):
        require(name, package=package)
