"""The files of searches: values as one JSON text each, and a journal of what was measured, line by line."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from compressor.errors import FileError
from compressor.whole_files import drafted

__all__ = ["Journal", "load_json", "read_json", "write_json"]

log = logging.getLogger(__name__)

_VERSION = 1

Value = TypeVar("Value")


def write_json(path: str | os.PathLike[str], kind: str, content: Mapping[str, Any]) -> None:
    """Write a value to `path`, the old file or the new one whenever it is interrupted; raises FileError."""
    head = {"format": kind, "version": _VERSION, "digest": _digest(content)}
    with drafted(Path(path), what=repr(str(path))) as draft:
        draft.write_text(json.dumps({**head, **content}, indent=1) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """The content that `write_json` wrote; raises FileError for anything else."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read {str(path)!r}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{str(path)!r} is not complete JSON (truncated?): {error}") from error
    if not isinstance(data, dict) or data.get("format") != kind:
        raise FileError(f"{str(path)!r} is no file of the format {kind!r}")
    if data.get("version") != _VERSION:
        raise FileError(f"{str(path)!r} has format version {data.get('version')!r}, expected {_VERSION}")
    content = {key: value for key, value in data.items() if key not in ("format", "version", "digest")}
    if data.get("digest") != _digest(content):
        raise FileError(f"{str(path)!r} was changed after it was written: its digest does not match")
    return content


def load_json(path: str | os.PathLike[str], kind: str, build: Callable[[Mapping[str, Any]], Value]) -> Value:
    """What `build` makes of the content that `write_json` wrote; raises FileError naming the file."""
    content = read_json(path, kind)
    try:
        return build(content)
    except FileError as error:
        raise FileError(f"{str(path)!r}: {error}") from error


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


class Journal:
    """Numbers by key, kept in a file that grows by one line for each, so that nothing measured is lost.

    `head` says what they are of: a file with another head is refused with FileError. A line that a killed
    process left half written is dropped. Without a path nothing is kept.
    """

    def __init__(self, path: str | os.PathLike[str] | None, head: Mapping[str, str | int]) -> None:
        self.known: dict[str, float] = {}
        self._path = None if path is None else Path(path)
        self._head = {"format": "compressor-qualities", "version": _VERSION, **head}
        if self._path is None:
            return
        try:
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            whole, _, rest = text.rpartition("\n")
            if rest:
                log.warning("%s: its last line is not complete, and is dropped", self._path)
            lines = whole.split("\n") if whole else []
            if lines:
                self._read(lines)
            else:
                lines = [json.dumps(self._head)]
            if rest or not text:
                with drafted(self._path, what=f"the cache {str(self._path)!r}") as draft:
                    draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot use {str(self._path)!r} as a cache: {error}") from error

    def add(self, key: str, value: float, *, what: str) -> None:
        """Keep a number; `what` tells people what it is of."""
        self.known[key] = value
        if self._path is None:
            return
        line = json.dumps({"key": key, "quality": value, "what": what}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(f"cannot write to the cache {str(self._path)!r}: {error}") from error

    def _read(self, lines: list[str]) -> None:
        where = str(self._path)
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                if number == 1:
                    self._check(entry)
                else:
                    quality = float(entry["quality"])
                    if not math.isfinite(quality):
                        raise ValueError(f"its quality is {quality}")
                    self.known[str(entry["key"])] = quality
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                raise FileError(f"{where!r} line {number} is no entry of a cache: {error!r}") from error

    def _check(self, head: object) -> None:
        where = f"the cache {str(self._path)!r}"
        if not isinstance(head, dict) or head.get("format") != self._head["format"]:
            raise FileError(f"{where} is a file of another kind; name another one")
        for key, value in self._head.items():
            if head.get(key) != value:
                raise FileError(
                    f"{where} is of another {key}: {head.get(key)!r}, now it is {value!r}; name another "
                    "file, or delete this one"
                )
