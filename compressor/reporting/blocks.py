"""What sections of a report are made of: text, facts, tiles, tables, and what is folded away."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from compressor.reporting.escaping import as_html, as_markdown

__all__ = ["Block", "Facts", "Folded", "Table", "Text", "Tile", "Tiles"]


class Block(ABC):
    """A piece of a section, which holds plain text and escapes it where it is shown."""

    @abstractmethod
    def html(self) -> str:
        """The block as HTML that needs nothing but the style of the page."""

    @abstractmethod
    def markdown(self) -> str:
        """The block as Markdown, without a line break at its end; empty where only a picture says it."""


@dataclass(frozen=True)
class Text(Block):
    """A paragraph; `soft` ones explain, `warns` ones are not to be missed."""

    text: str
    soft: bool = False
    warns: bool = False

    def html(self) -> str:
        kind = ' class="warning"' if self.warns else ' class="note"' if self.soft else ""
        return f"<p{kind}>{as_html(self.text)}</p>"

    def markdown(self) -> str:
        return f"**{as_markdown(self.text)}**" if self.warns else as_markdown(self.text)


@dataclass(frozen=True)
class Facts(Block):
    """Labels and what is to say of each."""

    facts: tuple[tuple[str, str], ...]

    def html(self) -> str:
        rows = (f"<dt>{as_html(label)}</dt><dd>{as_html(fact)}</dd>" for label, fact in self.facts)
        return f"<dl>{''.join(rows)}</dl>"

    def markdown(self) -> str:
        return "\n".join(f"- {as_markdown(label)}: {as_markdown(fact)}" for label, fact in self.facts)


@dataclass(frozen=True)
class Tile:
    """One number to remember: the share that is left, drawn as a bar where it is at most 1."""

    label: str
    value: str
    detail: str
    left: float | None = None


@dataclass(frozen=True)
class Tiles(Block):
    """The numbers that a reader sees first; a list in Markdown."""

    tiles: tuple[Tile, ...]

    def html(self) -> str:
        return f'<div class="tiles">{"".join(map(_tile, self.tiles))}</div>'

    def markdown(self) -> str:
        return "\n".join(
            f"- {as_markdown(tile.label)}: **{as_markdown(tile.value)}** ({as_markdown(tile.detail)})"
            for tile in self.tiles
        )


def _tile(tile: Tile) -> str:
    bar = ""
    if tile.left is not None:
        over = " over" if tile.left > 1 else ""
        width = f"{100 * min(max(tile.left, 0.0), 1.0):.1f}%"
        bar = f'<span class="track"><span class="fill{over}" style="width:{width}"></span></span>'
    words = f"<strong>{as_html(tile.value)}</strong><span>{as_html(tile.detail)}</span>"
    return f'<div class="tile"><h3>{as_html(tile.label)}</h3>{words}{bar}</div>'


@dataclass(frozen=True)
class Table(Block):
    """A head and rows of as many cells; the first `left` columns are words, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    @classmethod
    def of(cls, rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
        """The table of rows whose first one is the head."""
        head, *rest = (tuple(row) for row in rows)
        return cls(head, tuple(rest), left)

    def html(self) -> str:
        head = "".join(f'<th scope="col"{self._kind(n)}>{as_html(c)}</th>' for n, c in enumerate(self.head))
        rows = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        # A region that scrolls has to be within reach of the keyboard.
        return (
            f'<div class="wide" tabindex="0" role="region" aria-label="table"><table><thead><tr>{head}</tr>'
            f"</thead><tbody>{rows}</tbody></table></div>"
        )

    def _cells(self, row: tuple[str, ...]) -> str:
        first = f'<th scope="row">{as_html(row[0])}</th>'
        return first + "".join(
            f"<td{self._kind(n)}>{as_html(cell)}</td>" for n, cell in enumerate(row[1:], start=1)
        )

    def _kind(self, column: int) -> str:
        return ' class="words"' if column < self.left else ""

    def markdown(self) -> str:
        rule = ["---" if n < self.left else "---:" for n in range(len(self.head))]
        cells = [[as_markdown(cell) for cell in row] for row in self.rows]
        lines = [[as_markdown(cell) for cell in self.head], rule, *cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Folded(Block):
    """Blocks that one opens to see them; Markdown, which is for a glance, leaves them out unless `told`."""

    title: str
    blocks: tuple[Block, ...]
    told: bool = False

    def html(self) -> str:
        inner = "".join(block.html() for block in self.blocks)
        return f"<details><summary>{as_html(self.title)}</summary>{inner}</details>"

    def markdown(self) -> str:
        return "\n\n".join(filter(None, (block.markdown() for block in self.blocks))) if self.told else ""
