"""The images of a folder, in the order of their names; faulty files are named and counted."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from compressor.data.images.reading import Colour, read_image
from compressor.errors import FileError

__all__ = ["ImageSet", "Unreadable", "image_files", "read_folder"]

log = logging.getLogger(__name__)

SUFFIXES = (
    ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
_NAMED = 5  # so many faulty files are named in an error, the others are counted


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images uint8 [C, H, W] of any sizes with the names of their files, and what was left out."""

    names: tuple[str, ...]
    images: tuple[Tensor, ...]
    skipped: tuple[Unreadable, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return zip(self.names, self.images, strict=True)

    def __repr__(self) -> str:
        left = f", {len(self.skipped)} unreadable left out" if self.skipped else ""
        return f"ImageSet({len(self)} images{left})"


def image_files(folder: str | os.PathLike[str], *, recursive: bool = False) -> list[Path]:
    """The image files of a folder, sorted by name; told by their suffix, hidden ones left out.

    Raises FileError where there is no such folder, or no image in it.

    >>> image_files("no/such/folder")
    Traceback (most recent call last):
        ...
    compressor.errors.FileError: image folder no/such/folder: no such folder
    """
    path = Path(folder)
    if not path.is_dir():
        what = "is a file, expected a folder" if path.is_file() else "no such folder"
        raise FileError(f"image folder {path}: {what}")
    inside = sorted(path.rglob("*") if recursive else path.iterdir(), key=lambda file: file.parts)
    # A link to nothing is a file that cannot be read, and no file less.
    files = [file for file in inside if file.is_file() or (file.is_symlink() and not file.exists())]
    visible = [file for file in files if not file.name.startswith(".")]
    found = [file for file in visible if file.suffix.lower() in SUFFIXES]
    if not found:
        folders = 0 if recursive else sum(file.is_dir() for file in inside)
        deeper = f" and {folders} folders, which recursive=True would search" if folders else ""
        raise FileError(
            f"image folder {path}: holds no image, but {len(visible)} other files{deeper}; images end in "
            f"{', '.join(SUFFIXES)}"
        )
    return found


def read_folder(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = False,
    skip_unreadable: bool = False,
    keep_grey: bool = False,
    background: Colour | None = None,
) -> ImageSet:
    """All images of a folder in memory, see `image_files` and `read_image`; names are relative to it.

    Raises FileError that counts and names the files that cannot be read. With `skip_unreadable` they are left
    out, each with a warning in the log, and stand in `skipped`; where none is left, it is an error still.
    For more than memory holds: `for file in image_files(folder): read_image(file)`.

    >>> import tempfile, torch
    >>> from compressor.data.images import write_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(torch.zeros(3, 4, 4, dtype=torch.uint8), Path(folder) / "b.png")
    ...     _ = (Path(folder) / "a.png").write_bytes(b"no image")
    ...     found = read_folder(folder, skip_unreadable=True)
    >>> found, found.skipped[0].name
    (ImageSet(1 images, 1 unreadable left out), 'a.png')
    """
    path = Path(folder)
    names: list[str] = []
    images: list[Tensor] = []
    faults: list[Unreadable] = []
    for file in image_files(path, recursive=recursive):
        name = file.relative_to(path).as_posix()
        try:
            images.append(read_image(file, keep_grey=keep_grey, background=background))
            names.append(name)
        except FileError as error:
            faults.append(Unreadable(name, str(error)))
            if skip_unreadable:
                log.warning("left out: %s", error)
    if faults and (not skip_unreadable or not images):
        raise FileError(_said(path, faults, len(images), skip_unreadable))
    return ImageSet(tuple(names), tuple(images), tuple(faults))


def _said(path: Path, faults: list[Unreadable], read: int, skipping: bool) -> str:
    lines = [f"  {fault.reason}" for fault in faults[:_NAMED]]
    if len(faults) > _NAMED:
        lines.append(f"  and {len(faults) - _NAMED} more")
    way = "none is left" if skipping else "mend or remove them, or leave them out with skip_unreadable=True"
    whole = len(faults) + read
    return f"image folder {path}: {len(faults)} of {whole} images cannot be read; {way}:\n" + "\n".join(lines)
