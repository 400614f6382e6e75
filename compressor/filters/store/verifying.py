"""Whether the files of a store are those that were written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from compressor.errors import FileError
from compressor.filters.store import journal
from compressor.filters.store.naming import listed

__all__ = ["Verified", "verify_store"]


@dataclass(frozen=True)
class Verified:
    """What was read and found to be as written."""

    models: int
    kernels: int
    files: int
    read_bytes: int

    def __str__(self) -> str:
        what = f"{self.models} models, {self.kernels} kernels, {self.files} files"
        return f"{what}, {self.read_bytes} bytes: as written"


def verify_store(folder: str | os.PathLike[str], *, progress: bool = False) -> Verified:
    """Read every file of a store and compare it with its checksum; `progress` draws a bar.

    Raises FileError that names all files which are missing, truncated or changed, and those that no line of
    the store speaks of.

    >>> import tempfile
    >>> from compressor.filters.store import StoreWriter
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     StoreWriter(folder).close()
    ...     print(verify_store(folder))
    0 models, 0 kernels, 0 files, 0 bytes: as written
    """
    path = Path(folder)
    journal.read_head(path)
    entries, _ = journal.read_entries(path)
    faults = list(_strangers(path, entries))
    read = 0
    for entry in tqdm(entries, desc="verifying", unit="model", leave=False, disable=not progress):
        by_size = list(journal.size_faults(path, entry))
        faults += by_size or _changed(path, entry)
        read += sum(int(said["bytes"]) for said in entry.files.values())
    if faults:
        raise FileError(
            f"{path}: {len(faults)} files are not as the store was written; take them back from a copy, or "
            f"write the store again:\n{listed(faults)}"
        )
    files = sum(len(entry.files) for entry in entries)
    return Verified(len(entries), sum(entry.kernels for entry in entries), files, read)


def _changed(folder: Path, entry: journal.Entry) -> list[str]:
    return [
        f"{name}: was changed, its checksum is another ({entry.model})"
        for name, said in entry.files.items()
        if journal.sha256_of(folder / name) != said["sha256"]
    ]


def _strangers(folder: Path, entries: list[journal.Entry]) -> Iterator[str]:
    for name in journal.unlisted(folder, entries):
        yield (
            f"{name}: no line of {journal.JOURNAL} speaks of it; it was left by a process that ended while "
            "it wrote (StoreWriter(folder) removes it), or lines were lost"
        )
