"""Optional dependencies, imported only when they are needed."""

from __future__ import annotations

import importlib

from compressor.errors import MissingExtraError

__all__ = ["require_metrics"]


def require_metrics() -> None:
    """Raise MissingExtraError, with the command that helps, where scikit-learn or SciPy is absent."""
    for name, package in (("scipy", "scipy"), ("sklearn", "scikit-learn")):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f"evaluation needs {package}, which cannot be imported ({error}): "
                f"pip install 'compressor[metrics]'"
            ) from error
