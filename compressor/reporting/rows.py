"""Pictures in rows: a name, a number and a strip of graphics for each, as wide as the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.reporting.blocks import Block
from compressor.reporting.escaping import as_html, shortened, visible

__all__ = ["STRIP", "Row", "Rows", "bar", "legend", "line"]

STRIP = 10
"""The height of a strip's own coordinates; its width is 100."""
_NAME = 32  # characters of a name that fit beside a number on a phone
_TEXT, _HEIGHT, _GAP = 16, 9, 7  # pixels: the line of words, the strip under it, room to the next row


@dataclass(frozen=True)
class Row:
    """`graphic` is SVG within 100 x STRIP, `text` the same in characters for Markdown, if it can be said."""

    name: str
    value: str
    graphic: str
    text: str = ""


@dataclass(frozen=True)
class Rows(Block):
    """Rows under each other, in columns on a desk, with a legend of (class, words) above.

    `title` says what the picture shows, `caption` how to read it, where Markdown does not show it.
    """

    title: str
    rows: tuple[Row, ...]
    key: tuple[tuple[str, str], ...] = ()
    height: int = _HEIGHT
    caption: str = ""

    def html(self) -> str:
        drawn = "".join(map(self._row, self.rows))
        caption = f"<figcaption>{as_html(self.caption)}</figcaption>" if self.caption else ""
        return (
            f'<figure>{legend(self.key)}<div class="rows" role="group" aria-label="{as_html(self.title)}">'
            f"{drawn}</div>{caption}</figure>"
        )

    def _row(self, row: Row) -> str:
        name, words = as_html(shortened(row.name, _NAME)), as_html(f"{row.name}: {row.value}")
        return (
            f'<svg width="100%" height="{_TEXT + self.height + _GAP}" role="img" aria-label="{words}">'
            f'<title>{words}</title><text x="0" y="{_TEXT - 5}">{name}</text>'
            f'<text x="100%" y="{_TEXT - 5}" class="value">{as_html(row.value)}</text>'
            f'<svg x="0" y="{_TEXT}" width="100%" height="{self.height}" '
            f'viewBox="0 0 100 {STRIP}" preserveAspectRatio="none">{row.graphic}</svg></svg>'
        )

    def markdown(self) -> str:
        if not any(row.text for row in self.rows):
            return ""
        cells = [(visible(row.name), visible(row.value), row.text) for row in self.rows]
        widths = [max(len(cell[n]) for cell in cells) for n in (0, 1)]
        lines = [f"{name:<{widths[0]}}  {value:>{widths[1]}}  {text}" for name, value, text in cells]
        fence = "`" * (3 + max((run for line in lines for run in _runs(line)), default=0))
        return "\n".join([f"{fence}text", *(line.rstrip() for line in lines), fence])


def _runs(line: str) -> list[int]:
    """Lengths of runs of backticks: a fence has to be longer."""
    return [len(run) for run in "".join(c if c == "`" else " " for c in line).split()]


def legend(key: Sequence[tuple[str, str]]) -> str:
    """The HTML of a legend: a swatch of each class, and its words."""
    if not key:
        return ""
    items = (
        f'<li><svg class="swatch" width="16" height="10" aria-hidden="true">'
        f'<rect class="{kind}" x="1" y="1" width="14" height="8"/></svg>{as_html(words)}</li>'
        for kind, words in key
    )
    return f'<ul class="key">{"".join(items)}</ul>'


def bar(kind: str, left: float, width: float, top: float = 0, height: float = STRIP) -> str:
    """A rectangle in a strip; nothing where it has no extent."""
    if width <= 0 or height <= 0:
        return ""
    return f'<rect class="{kind}" x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}"/>'


def line(kind: str, points: Sequence[tuple[float, float]]) -> str:
    """A line through points of a strip."""
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.2f},{y:.2f}" for x, y in points)}"/>'
