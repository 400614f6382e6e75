"""What a recipe found, as JSON and as a table for a page, with what it takes to repeat it."""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["markdown", "write"]

PACKAGES = ("compressor", "torch", "numpy", "onnxruntime")


def write(
    folder: Path,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    notes: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    name: str = "results",
) -> str:
    """The table as text, written to `folder` as name.json and name.md.

    Every row maps columns to values: text as it should be read, or numbers. `notes` say below the table how
    it was measured; `facts` are further plain values for the JSON file, such as options and seeds. The
    command is recorded without folders, so that nothing of the machine is in the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = markdown(title, rows, notes)
    content = {
        "title": title,
        "command": _command(),
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {package: _version(package) for package in PACKAGES},
        "threads": torch.get_num_threads(),
        "facts": dict(facts or {}),
        "rows": [{key: _plain(value) for key, value in row.items()} for row in rows],
        "notes": list(notes),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(table + "\n", encoding="utf-8")
    return table


def markdown(title: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """The table for a page; the first column is words, the others are numbers.

    >>> print(markdown("Set5", [{"filter": "bicubic", "dB": 30.391}, {"filter": "ESPCN"}]))
    ### Set5
    <BLANKLINE>
    | filter | dB |
    | :--- | ---: |
    | bicubic | 30.39 |
    | ESPCN |  |
    <BLANKLINE>
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    rule = [":---"] + ["---:"] * (len(columns) - 1)
    body = [[_shown(row.get(column, "")) for column in columns] for row in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in ([*columns], rule, *body)]
    return "\n".join([f"### {title}", "", *lines, "", *(f"{note}  " for note in notes)])


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|")


def _plain(value: object) -> object:
    """JSON has no number for infinity or NaN: these stay readable as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _command() -> str:
    words = [Path(word).name if "/" in word else word for word in sys.argv]
    return shlex.join(["python", *words])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
