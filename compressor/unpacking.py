"""Archives that would take far more memory than they have bytes: refused before anything is unpacked."""

from __future__ import annotations

import os
import zipfile

from compressor.errors import FileError

__all__ = ["refuse_bomb", "refuse_compressed"]

_FREELY = 1 << 28
"""Bytes that any archive may unpack to: 256 MiB."""

_TIMES = 100
"""How many times its own size one may take beyond that. Measured numbers come to less than ten times."""


def refuse_bomb(path: str | os.PathLike[str]) -> None:
    """Raise FileError for a zip archive that unpacks to over 256 MiB and over 100 times its size.

    A megabyte of zip can hold a gigabyte of zeros. What is no zip archive, or one that is damaged, is left to
    its reader, which refuses it in its own words: Python's own zip reader, as here.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "zeros.npz"
    ...     with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    ...         with archive.open("zeros", "w") as zeros:
    ...             for _ in range(300):
    ...                 _ = zeros.write(bytes(1 << 20))
    ...     refuse_bomb(file)
    Traceback (most recent call last):
        ...
    compressor.errors.FileError: ...zeros.npz unpacks to 314,572,800 bytes, more than 100 times its ...
    """
    try:
        unpacked = sum(member.file_size for member in _members(path))
    except FileError:
        return
    size = os.path.getsize(path)
    if unpacked > max(_FREELY, _TIMES * size):
        raise FileError(
            f"{path} unpacks to {unpacked:,} bytes, more than {_TIMES} times its {size:,}: it may be made to "
            "fill the memory. If it is yours, write it without compression"
        )


def refuse_compressed(path: str | os.PathLike[str]) -> None:
    """Raise FileError for a file of torch with compressed records, which torch itself never writes.

    So it does for a damaged archive: torch has a zip reader of its own, which might make more of it.
    """
    for member in _members(path):
        if member.compress_type != zipfile.ZIP_STORED:
            raise FileError(
                f"the record {member.filename!r} of {path} is compressed, which torch.save never does: it "
                "may be made to fill the memory. If it is yours, unzip it and save its content by torch.save"
            )


def _members(path: str | os.PathLike[str]) -> list[zipfile.ZipInfo]:
    """What a zip archive holds by its directory, and nothing for another file."""
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":
                return []
            with zipfile.ZipFile(file) as archive:
                return archive.infolist()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error}") from error
    except Exception as error:  # a damaged directory raises nearly anything
        raise FileError(f"{path} is damaged or truncated ({type(error).__name__}: {error})") from error
