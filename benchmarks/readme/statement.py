"""A statement of the README: its text, made of kept results, and the command that repeats them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results, zoo

__all__ = ["Content", "Statement", "in_one_line", "percent", "row_of"]

Content = Mapping[str, Any]
_RECIPES = "recipes/"


@dataclass(frozen=True)
class Statement:
    """Texts of the README, the command that repeats their numbers, and the results they are read from.

    `files` are names of results without their ending; those that begin with "recipes/" are the recipes'.
    `said` is given what these files hold, one by one.
    """

    about: str
    command: str
    files: tuple[str, ...]
    said: Callable[..., Iterable[str]]

    def texts(self) -> tuple[str, ...]:
        """The texts as the README has them, each in one line; FileNotFoundError where results are missing."""
        return tuple(self.said(*(_read(name) for name in self.files)))

    def links(self) -> str:
        """Links to the files from the folder of the pages."""
        return ", ".join(map(_link, self.files))


def in_one_line(text: str) -> str:
    """The text with each run of white space as one space: lines are wrapped in one place and not in another.

    >>> in_one_line("half of\\n  the MACs")
    'half of the MACs'
    """
    return re.sub(r"\s+", " ", text)


def row_of(rows: Iterable[Content], **wanted: object) -> Content:
    """The one row with these values."""
    (found,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return found


def percent(share: float, digits: int = 1) -> str:
    """A share in per cent, without the sign."""
    return f"{100 * share:.{digits}f}"


def _file(name: str) -> Path:
    """The JSON file of a result."""
    if name.startswith(_RECIPES):
        return zoo.ROOT / "examples" / "recipes" / "results" / f"{name.removeprefix(_RECIPES)}.json"
    return results.FOLDER / f"{name}.json"


def _read(name: str) -> Content:
    content = json.loads(_file(name).read_text(encoding="utf-8"))
    assert isinstance(content, dict), name
    return content


def _link(name: str) -> str:
    """A link to the tables of a result, or its name where there are none."""
    folder = "examples/recipes/results" if name.startswith(_RECIPES) else "benchmarks/results"
    file = _file(name).with_suffix(".md")
    return f"[{file.stem}](../{folder}/{file.name})" if file.is_file() else file.stem
