"""Files and folders that appear whole or not at all, and folders that replace only what an export wrote."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from compressor import whole_files
from compressor.errors import ExportError

__all__ = ["drafted", "replaceable", "replaced"]


def drafted(path: Path, *, what: str | None = None) -> AbstractContextManager[Path]:
    """`whole_files.drafted` for an exported file: its folder is made, and errors are ExportErrors."""
    return whole_files.drafted(path, what=what or str(path), error=ExportError, make_folder=True)


@contextmanager
def replaced(folder: Path, *, what: str | None = None) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` at the end; errors are those of `drafted`.

    No system call of every system exchanges two folders: a process that is killed between the two renames
    leaves no `folder`, and the earlier one whole in `.exporting-…/earlier` beside it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder.parent) as aside:
            whole, earlier = Path(aside) / "whole", Path(aside) / "earlier"
            whole.mkdir()
            yield whole
            if folder.exists():
                os.replace(folder, earlier)
            try:
                os.replace(whole, folder)
            except OSError:
                if earlier.exists():
                    shutil.move(earlier, folder)
                raise
    except OSError as error:
        raise ExportError(f"cannot write {what or folder}: {error}") from error


def replaceable(folder: Path, manifest: str, format: str) -> bool:
    """Whether there is nothing in it but the files that its `manifest` (JSON of this `format`) lists.

    >>> replaceable(Path("no such folder"), "manifest.json", "bundle")
    True
    """
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    try:
        found = json.loads((folder / manifest).read_text(encoding="utf-8"))
        written = {manifest, *found["files"]} if found["format"] == format else set()
    except (OSError, ValueError, TypeError, KeyError):
        written = set()
    return all(
        path.relative_to(folder).as_posix() in written for path in folder.rglob("*") if not path.is_dir()
    )
