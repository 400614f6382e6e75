"""What is said where the `ecg` extra (wfdb, SciPy) is absent."""

from __future__ import annotations

from compressor.errors import MissingExtraError

__all__ = ["missing"]


def missing(library: str, purpose: str, error: ImportError) -> MissingExtraError:
    """The error, with the command that helps.

    >>> print(missing("wfdb", "reading WFDB files", ImportError("No module named 'wfdb'")))
    reading WFDB files needs wfdb, and it cannot be imported (No module named 'wfdb'):
    pip install 'compressor[ecg]'
    """
    return MissingExtraError(
        f"{purpose} needs {library}, and it cannot be imported ({error}): pip install 'compressor[ecg]'"
    )
