"""Files that appear whole or not at all: written aside, brought to the disk, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import CompressorError, FileError

__all__ = ["drafted", "on_disk", "written_through"]


@contextmanager
def drafted(
    path: Path,
    *,
    what: str,
    error: type[CompressorError] = FileError,
    fix: str = "",
    make_folder: bool = False,
) -> Iterator[Path]:
    """The path of a file to write, which takes the place of `path` at the end.

    Whatever happens, `path` is the file of before or the whole new one, also after a power cut. The draft
    lies in a folder of its own, `.writing-…` beside `path`, with room for other drafts; a process that is
    killed leaves that folder behind. `make_folder` makes the folder of `path` where it is missing.

    Raises `error`, "cannot write `what`: …" with the `fix`, where the system refuses.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with drafted(Path(folder) / "a.txt", what="the greeting") as draft:
    ...         _ = draft.write_text("hello")
    ...     [file.name for file in Path(folder).iterdir()]
    ['a.txt']
    """
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as aside:
            draft = Path(aside) / path.name
            yield draft
            on_disk(draft)
            os.replace(draft, path)
            on_disk(path.parent)
    except OSError as fault:
        # Its own text names the draft, which nobody asked for.
        raise error(f"cannot write {what}: {fault.strerror or fault}{f'; {fix}' if fix else ''}") from fault


def written_through(path: Path, content: bytes) -> None:
    """Write a file and wait until its content is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def on_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; folders where the system opens them."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
