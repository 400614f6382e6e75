"""Folders that appear whole or not at all, and replace only what an earlier run of the same kind wrote."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import ExportError

__all__ = ["replaceable", "replaced"]


def replaceable(folder: Path, manifest: str, format: str) -> bool:
    """Whether it is absent, empty, or has a `manifest` (JSON) of this `format`.

    >>> replaceable(Path("no such folder"), "manifest.json", "bundle")
    True
    """
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        found = json.loads((folder / manifest).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == format


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` at the end; after an error all is as it was.

    Raises ExportError where the system does not allow that.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder.parent) as aside:
            whole, earlier = Path(aside) / folder.name, Path(aside) / "earlier"
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
        raise ExportError(f"cannot write {folder}: {error}") from error
