"""What is said where an optional dependency is absent."""

from __future__ import annotations

from compressor.errors import MissingExtraError

__all__ = ["missing"]


def missing(library: str, extra: str, error: ImportError) -> MissingExtraError:
    """The error, with the command that helps.

    >>> print(missing("Accelerate", "accelerate", ImportError("No module named 'accelerate'")))
    the callbacks for Accelerate need it, and it cannot be imported (No module named 'accelerate'):
    pip install 'compressor[accelerate]'
    """
    return MissingExtraError(
        f"the callbacks for {library} need it, and it cannot be imported ({error}): pip install "
        f"'compressor[{extra}]'"
    )
