"""Taking up a store for writing: one process at a time, and without what an earlier one left unfinished."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.errors import FileError, InputError
from compressor.extras import imported
from compressor.filters.store import journal
from compressor.whole_files import written_through

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
    """The models that are in the store, a new one if need be, freed of what an interrupted process left."""
    _begin(folder, head)
    there = journal.read_head(folder)
    if there != head:
        raise InputError(f"{folder} is a store of {there}, and {head} was asked for; name another folder")
    for name in journal.FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    entries, whole_bytes = journal.read_entries(folder)
    missing = sorted(name for entry in entries for name in entry.files if not (folder / name).is_file())
    if missing:
        raise FileError(f"{folder}: the file {missing[0]} is missing; verify_store(folder) names them all")
    _remove_unfinished(folder, entries)
    journal.cut(folder, whole_bytes)
    return entries


def _begin(folder: Path, head: journal.Head) -> None:
    """Make a store of an empty folder; the head comes last."""
    found = {path.name for path in folder.iterdir()} - {_LOCK, f".{journal.HEAD}"}
    if journal.HEAD in found:
        return
    empty = folder / journal.JOURNAL
    if empty.is_file() and not empty.stat().st_size:
        found -= {journal.JOURNAL}
    if found:
        raise FileError(f"{folder} is no store of filters and holds {sorted(found)[0]}; name an empty folder")
    written_through(empty, b"")
    journal.write_head(folder, head)


def _remove_unfinished(folder: Path, entries: Sequence[journal.Entry]) -> None:
    """Remove the files of the part that was being written; others that are not listed are a fault."""
    part = len(entries)
    unfinished = {journal.kernel_file(part), journal.layer_file(part)}
    strangers = journal.unlisted(folder, entries)
    lost = sorted(set(strangers) - unfinished)
    if lost:
        raise FileError(
            f"{folder}: no line of {journal.JOURNAL} speaks of {lost[0]}; lines were lost, and nothing is "
            "written before the file is taken back from a copy, or those files are moved away"
        )
    shutil.rmtree(folder / ASIDE, ignore_errors=True)
    for name in strangers:
        log.info("%s: removed, it was left by a process that ended while it wrote", folder / name)
        (folder / name).unlink()
