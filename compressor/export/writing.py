"""Files and folders that appear whole or not at all, and folders that replace only what an export wrote."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import ExportError

__all__ = ["drafted", "replaceable", "replaced"]


@contextmanager
def drafted(path: Path, *, what: str | None = None) -> Iterator[Path]:
    """The path of a file, in an empty folder, that takes the place of `path` at the end.

    After an error `path` is as it was. Raises ExportError, which calls the file `what`, where the system does
    not allow that.
    """
    with _aside(path, what) as aside:
        draft = aside / path.name
        yield draft
        os.replace(draft, path)


@contextmanager
def replaced(folder: Path, *, what: str | None = None) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` at the end; errors are those of `drafted`."""
    with _aside(folder, what) as aside:
        whole, earlier = aside / "whole", aside / "earlier"
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


@contextmanager
def _aside(path: Path, what: str | None) -> Iterator[Path]:
    """An empty folder beside `path`, on the same file system, removed at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=path.parent) as aside:
            yield Path(aside)
    except OSError as error:
        raise ExportError(f"cannot write {what or path}: {error}") from error
