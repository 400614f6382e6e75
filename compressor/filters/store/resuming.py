"""Taking up a store for writing: one process at a time, and without what an earlier one left unfinished."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from compressor.errors import FileError, InputError
from compressor.extras import imported
from compressor.filters.store import journal

__all__ = ["ASIDE", "locked", "resumed"]

log = logging.getLogger(__name__)

ASIDE, _LOCK = ".writing", ".lock"


def locked(folder: Path) -> Any:
    """A lock on the folder that ends with the process."""
    filelock = imported("filelock", extra="filters", needed_for="writing a store of filters")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / _LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise FileError(
            f"{folder}: another process is writing to this store; wait for it, or end it"
        ) from error
    except OSError as error:
        raise FileError(f"{folder}: no store can be written here: {error}") from error
    return lock


def resumed(folder: Path, head: journal.Head) -> list[journal.Entry]:
    """The models that are in the store; what an interrupted process left beside them is removed."""
    found = {path.name for path in folder.iterdir()} - {_LOCK, f".{journal.HEAD}"}
    if journal.HEAD not in found:
        if found:
            raise FileError(
                f"{folder} is no store of filters and holds {sorted(found)[0]}; name an empty folder"
            )
        for name in journal.FOLDERS:
            (folder / name).mkdir()
        journal.write_head(folder, head)
        return []
    there = journal.read_head(folder)
    if there != head:
        raise InputError(f"{folder} is a store of {there}, and {head} was asked for; name another folder")
    entries, whole_bytes = journal.read_entries(folder)
    journal.cut(folder, whole_bytes)
    listed = {name for entry in entries for name in entry.files}
    shutil.rmtree(folder / ASIDE, ignore_errors=True)
    for path in (path for name in journal.FOLDERS for path in (folder / name).iterdir()):
        if path.relative_to(folder).as_posix() not in listed:
            log.info("%s: removed, it was left by a process that ended while it wrote", path)
            path.unlink()
    missing = sorted(name for name in listed if not (folder / name).is_file())
    if missing:
        raise FileError(f"{folder}: the file {missing[0]} is missing; verify_store(folder) names them all")
    return entries
