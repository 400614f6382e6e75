"""Text that others wrote, as HTML and as Markdown: nothing in it is markup, nothing is invisible."""

from __future__ import annotations

import html
import re

__all__ = ["as_html", "as_markdown", "shortened", "visible"]

# Underscores within a word are no emphasis and names are full of them, so these stay as they are.
_MARKDOWN = re.compile(r"[\\`*|~]|(?<!\w)_|_(?!\w)|(?<=\])\(|&(?=[#\w])")
_ANGLES = str.maketrans({"<": "&lt;", ">": "&gt;"})


def as_html(text: str) -> str:
    """The text for an element or a quoted attribute, on one line.

    >>> as_html('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(visible(text))


def as_markdown(text: str) -> str:
    r"""The text for a line or a cell of a table.

    >>> print(as_markdown("layer_1 | *<b>"))
    layer_1 \| \*&lt;b&gt;
    """
    marked = _MARKDOWN.sub(lambda found: f"\\{found[0]}", visible(text))
    return marked.translate(_ANGLES)


def shortened(name: str, length: int) -> str:
    """A name, or the end of one that is longer, where paths of modules differ.

    >>> shortened("layer1.0.conv1", 7)
    '….conv1'
    """
    return name if len(name) <= length else f"…{name[1 - length :]}"


def visible(text: str) -> str:
    """Line breaks as spaces, what has no picture (control, direction, half characters) as a mark."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
