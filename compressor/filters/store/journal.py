"""The manifest of a store: a head, and a line for each model that is in it whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import FileError
from compressor.filters.kernel_sizes import size_words
from compressor.version import __version__
from compressor.whole_files import on_disk, written_through

__all__ = [
    "FOLDERS",
    "HEAD",
    "JOURNAL",
    "Entry",
    "Head",
    "append",
    "cut",
    "kernel_file",
    "layer_file",
    "read_entries",
    "read_head",
    "sha256_of",
    "size_faults",
    "unlisted",
    "write_head",
]

log = logging.getLogger(__name__)

FORMAT, VERSION = "compressor filter store", 1
HEAD, JOURNAL, FOLDERS = "store.json", "models.jsonl", ("kernels", "layers")


@dataclass(frozen=True)
class Head:
    """What holds for a whole store: the size of its kernels, and the dtype of their values."""

    kernel_size: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"kernels of {size_words(self.kernel_size)} in {self.dtype}"

    @property
    def width(self) -> int:
        """The number of values of a kernel, K."""
        return int(np.prod(self.kernel_size))


@dataclass(frozen=True)
class Entry:
    """A model of a store: how many layers and kernels, the first key, and its files with their checksums.

    `kinds` are the kinds of its meta data: str, bool, int, float, or none.
    """

    model: str
    part: int
    first_key: int
    layers: int
    kernels: int
    source_sha256: str | None
    kinds: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]


def kernel_file(part: int) -> str:
    """The file of the kernels of a part, from the store's folder."""
    return f"kernels/{part:06d}.parquet"


def layer_file(part: int) -> str:
    """The file of its table of layers."""
    return f"layers/{part:06d}.parquet"


def sha256_of(path: Path) -> str:
    """The digest of a file, read in parts."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_head(folder: Path, head: Head) -> None:
    """Write the head of a new store; it appears whole or not at all."""
    said = {"format": FORMAT, "version": VERSION, "library": __version__, **asdict(head)}
    draft = folder / f".{HEAD}"
    written_through(draft, (json.dumps(said, indent=1) + "\n").encode())
    os.replace(draft, folder / HEAD)
    on_disk(folder)


def read_head(folder: Path) -> Head:
    """The head of a store; raises FileError where the folder is none, or of another version."""
    file = folder / HEAD
    if not file.is_file():
        raise FileError(f"{folder} is no store of filters: it has no {HEAD}; StoreWriter(folder) makes one")
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']!r}")
        if said["version"] != VERSION:
            raise FileError(
                f"{file}: a store of version {said['version']!r}, and this library reads version {VERSION}: "
                "extract the filters again, or use the library that wrote it"
            )
        sizes = said["kernel_size"]
        if not isinstance(sizes, list) or not sizes or not all(type(n) is int and n > 0 for n in sizes):
            raise ValueError(f"its kernel size is {sizes!r}")
        return Head(tuple(sizes), np.dtype(said["dtype"]).name)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise FileError(f"{file} is no head of a store ({type(error).__name__}: {error})") from error


def append(folder: Path, entry: Entry) -> None:
    """Add a model: its files are in place, and this line is what makes them part of the store."""
    line, file = _line(asdict(entry)), folder / JOURNAL
    before = file.stat().st_size
    try:
        with file.open("ab") as handle:
            handle.write(line)
            handle.flush()
            os.fsync(handle.fileno())
        on_disk(folder)
    except BaseException:  # a full disk, or Ctrl-C: half a line would join the next one
        cut(folder, before)
        raise


def read_entries(folder: Path) -> tuple[list[Entry], int]:
    """The models of a store, and how many bytes of the journal they take.

    What follows these bytes is a line that was being written when a process ended, and counts for nothing.
    Raises FileError for a line that was changed.
    """
    file = folder / JOURNAL
    if not file.is_file():
        raise FileError(f"{file}: is missing, and with it the list of models; take it back from a copy")
    content = file.read_bytes()
    *whole, torn = content.split(b"\n")
    if torn:
        log.warning("%s: its last line is torn, %d bytes; that model is not in the store", file, len(torn))
    entries = [_entry(file, number, line) for number, line in enumerate(whole, start=1)]
    for part, (entry, first) in enumerate(zip(entries, _first_keys(entries), strict=True)):
        if (entry.part, entry.first_key) != (part, first):
            raise FileError(
                f"{file}: line {part + 1} is of part {entry.part} from key {entry.first_key}, expected "
                f"{part} from {first}: lines are missing or out of order"
            )
    return entries, len(content) - len(torn)


def size_faults(folder: Path, entry: Entry) -> Iterator[str]:
    """What is wrong with the files of a model, as far as their sizes say."""
    for name, said in entry.files.items():
        file = folder / name
        if not file.is_file():
            yield f"{name}: is missing ({entry.model})"
        elif file.stat().st_size != said["bytes"]:
            yield f"{name}: has {file.stat().st_size} bytes, expected {said['bytes']} ({entry.model})"


def unlisted(folder: Path, entries: Sequence[Entry]) -> list[str]:
    """The files in the folders of a store that no line of the journal speaks of."""
    listed = {name for entry in entries for name in entry.files}
    paths = (path for kind in FOLDERS for path in (folder / kind).glob("*"))
    return sorted({path.relative_to(folder).as_posix() for path in paths} - listed)


def cut(folder: Path, whole_bytes: int) -> None:
    """Take away what follows the last whole line of the journal."""
    file = folder / JOURNAL
    if file.stat().st_size > whole_bytes:
        os.truncate(file, whole_bytes)
        on_disk(file)


def _first_keys(entries: list[Entry]) -> list[int]:
    firsts = [0]
    for entry in entries:
        firsts.append(firsts[-1] + entry.layers)
    return firsts[:-1]


def _line(said: Mapping[str, Any]) -> bytes:
    text = json.dumps(said, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"digest": digest, "entry": json.loads(text)}, sort_keys=True).encode() + b"\n"


def _entry(file: Path, number: int, line: bytes) -> Entry:
    try:
        said = json.loads(line)["entry"]
        if _line(said) != line + b"\n":
            raise ValueError("its digest is another")
        entry = Entry(**said)
        _require_sound(entry)
        return entry
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileError(
            f"{file}: line {number} was changed or damaged ({type(error).__name__}: {error}); take the file "
            "back from a copy, or write the store again"
        ) from error


def _require_sound(entry: Entry) -> None:
    """Raise ValueError for counts that are none, and for files of another place than the part's own."""
    sizes = [said["bytes"] for said in entry.files.values()]
    counts = (entry.part, entry.first_key, entry.layers, entry.kernels, *sizes)
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"its counts are {counts}")
    texts = (entry.model, *(said["sha256"] for said in entry.files.values()))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("its model or a digest is no text")
    if set(entry.files) != {kernel_file(entry.part), layer_file(entry.part)}:
        raise ValueError(f"its files are {', '.join(entry.files)}")
