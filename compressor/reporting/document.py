"""A report as a value: sections of plain data, and the one file they are written to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.errors import ExportError, InputError
from compressor.reporting.blocks import Block
from compressor.reporting.escaping import as_html, as_markdown
from compressor.whole_files import drafted

__all__ = ["ENDINGS", "Report", "Section"]

ENDINGS = (".html", ".htm", ".md")
"""Of files that a report can be written to."""

_STYLES = (Path(__file__).parent.parent / "base.css", Path(__file__).with_name("page.css"))
# Whatever got into the text, the page runs nothing and loads nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A part of a report: `key` names it in links and in data, `data` is what it says, ready for JSON."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    data: Mapping[str, Any]

    def html(self) -> str:
        """The section as HTML."""
        inner = "".join(block.html() for block in self.blocks)
        return f'<section id="{as_html(self.key)}"><h2>{as_html(self.title)}</h2>{inner}</section>'

    def markdown(self) -> str:
        """The section as Markdown."""
        parts = [f"## {as_markdown(self.title)}", *(block.markdown() for block in self.blocks)]
        return "\n\n".join(filter(None, parts))


@dataclass(frozen=True, repr=False)
class Report:
    """What was removed from a model, what that saves, and what was proved of it; see `compressor.report`.

    It holds text and numbers only, neither models nor tensors. `str()` is the Markdown.

    >>> section = Section("summary", "Summary", (), {"removed": 0})
    >>> report = Report("Net", (section,))
    >>> report
    Report(Net: summary)
    >>> report.to_dict()
    {'title': 'Net', 'summary': {'removed': 0}}
    """

    title: str
    sections: tuple[Section, ...]

    def __repr__(self) -> str:
        return f"Report({self.title}: {', '.join(section.key for section in self.sections)})"

    def __str__(self) -> str:
        return self.to_markdown()

    def __getitem__(self, key: str) -> Section:
        """The section of that key; InputError where the report has none."""
        for section in self.sections:
            if section.key == key:
                return section
        known = ", ".join(section.key for section in self.sections)
        raise InputError(f"the report has no section {key!r}; it has {known}")

    def html(self) -> str:
        """One HTML page: readable on a phone, light and dark, without scripts and without other files."""
        links = "".join(
            f'<a href="#{as_html(section.key)}">{as_html(section.title)}</a>' for section in self.sections
        )
        style = "".join(path.read_text(encoding="utf-8") for path in _STYLES)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{as_html(self.title)}</title>"
            f"<style>{style}</style></head>\n"
            f"<body><main><h1>{as_html(self.title)}</h1><nav>{links}</nav>\n"
            + "\n".join(section.html() for section in self.sections)
            + "\n</main></body></html>\n"
        )

    def to_markdown(self) -> str:
        """The same for a terminal or a pull request; long lists are left to the page."""
        parts = [f"# {as_markdown(self.title)}", *(section.markdown() for section in self.sections)]
        return "\n\n".join(parts) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain data by section, ready for JSON: None where something is not defined, never NaN."""
        return {"title": self.title, **{section.key: dict(section.data) for section in self.sections}}

    def write(self, path: str | os.PathLike[str]) -> Path:
        """The path of the file, .html or .md by its ending, written whole or not at all; an older one goes.

        Raises InputError for another ending, ExportError where the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in ENDINGS:
            raise InputError(f"a report is written as .html or .md, got {str(path)!r}")
        text = self.to_markdown() if path.suffix.lower() == ".md" else self.html()
        what = f"the report {str(path)!r}"
        with drafted(path, what=what, error=ExportError, make_folder=True) as draft:
            draft.write_text(text, encoding="utf-8")
        return path
