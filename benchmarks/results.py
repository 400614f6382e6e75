"""Tables on the screen and in `benchmarks/results/`, with what it takes to repeat a measurement."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["FOLDER", "Table", "context", "read", "save", "write_json"]

FOLDER = Path(__file__).resolve().parent / "results"
_PACKAGES = ("compressor", "torch", "torchvision", "torch-pruning", "numpy", "onnxruntime")


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading; `notes` say below the table how to read it.

    >>> print(Table("Sizes", ("net", "macs"), (("a", "1"), ("bc", "20"))).text())
    Sizes
    net  macs
    ---------
    a       1
    bc     20
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    words: tuple[int, ...] = (0,)  # columns of words, aligned to the left

    def text(self) -> str:
        """The table for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        left = self._left()
        padded = [
            "  ".join(
                cell.ljust(width) if word else cell.rjust(width)
                for cell, width, word in zip(row, widths, left, strict=True)
            ).rstrip()
            for row in lines
        ]
        rule = "-" * max(map(len, padded))
        return "\n".join([self.title, padded[0], rule, *padded[1:], *self.notes])

    def markdown(self) -> str:
        """The table for a page."""
        rule = [":---" if word else "---:" for word in self._left()]
        lines = [self.columns, rule, *self.rows]
        body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines]
        return "\n".join([f"### {self.title}", "", *body, "", *(f"{n}  " for n in self.notes)])

    def _left(self) -> list[bool]:
        n = len(self.columns)
        places = {place % n for place in self.words}
        return [i in places for i in range(n)]


def context(module: str, arguments: Mapping[str, Any], *, seeds: Sequence[int]) -> dict[str, Any]:
    """What it takes to repeat a run: versions, threads, seeds, command; no machine, no path."""
    return {
        "command": _command(module, arguments),
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in _PACKAGES},
        "threads": torch.get_num_threads(),
        "seeds": list(seeds),
    }


def save(name: str, facts: Mapping[str, Any], rows: object, tables: Sequence[Table]) -> str:
    """The name of what was written: `name`.json with facts and rows, `name`.md with the tables."""
    write_json(FOLDER / f"{name}.json", {"context": facts, "rows": rows, "tables": _plain(tables)})
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items() if v is not None)
    head = (
        f"`{facts['command']}`, {facts['date']}; Python {facts['python']}, {versions}; "
        f"{facts['system']}, {facts['threads']} thread(s), seeds {facts['seeds']}"
    )
    page = "\n\n".join([f"# {name}", head, *(table.markdown() for table in tables)])
    _replace(FOLDER / f"{name}.md", page + "\n")
    return f"benchmarks/results/{name}.json and .md"


def read(name: str) -> dict[str, Any] | None:
    """What an earlier run left in `name`.json, or None."""
    file = FOLDER / f"{name}.json"
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def write_json(file: Path, content: object) -> None:
    """Write plain data so that an interrupted run leaves the old file or the new one."""
    _replace(file, json.dumps(content, indent=1) + "\n")


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(file.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)


def _plain(tables: Sequence[Table]) -> list[dict[str, Any]]:
    return [asdict(table) for table in tables]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _command(module: str, arguments: Mapping[str, Any]) -> str:
    """The command line without the shared folder, which is a path of this machine."""
    words = ["python", "-m", f"benchmarks.{module}"]
    for name, value in arguments.items():
        if name == "shared" or value is None or value is False or value == []:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += map(str, value) if isinstance(value, list | tuple) else [str(value)]
    return shlex.join(words)
