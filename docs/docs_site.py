"""A Sphinx extension: docstrings in Markdown, a reference without gaps, pages that fetch nothing."""

from __future__ import annotations

import importlib
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

# Modules whose names are public beside those that `compressor` itself exports.
FURTHER = ("compressor.data", "compressor.persistence", "compressor.reporting", "compressor.testing")

_CODE = re.compile(r"(\w?)(`+)(.+?)\2(\w?)", re.S)
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*]+?)(?<=\S)\*(?![\w*])", re.S)
_SPECIAL = re.compile(r"([\\*|`]|(?<=\w)_(?!\w))")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _to_rst)
    app.connect("env-check-consistency", _check_names)
    app.connect("build-finished", _check_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def rst(markdown: str) -> str:
    """The docstring as reStructuredText: paragraphs, lists, code and doctests, which is all that ours hold.

    >>> print(rst("A `mean` over *all*, `x`s too; a*b."))
    A ``mean`` over *all*, ``x``\\ s too; a\\*b.
    """
    return "\n\n".join(_block(block) for block in re.split(r"\n[ ]*\n", markdown.rstrip()))


def public_names() -> dict[str, object]:
    """What the public modules export, by dotted name."""
    found: dict[str, object] = {}
    waiting = [importlib.import_module(name) for name in ("compressor", *FURTHER)]
    while waiting:
        module = waiting.pop()
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                waiting.append(value)
            else:
                found[f"{module.__name__}.{name}"] = value
    return found


def _to_rst(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    if str(getattr(obj, "__module__", "")).startswith("torch"):
        lines.clear()  # a default value that brings the docstring of its own
        return
    lines[:] = [*rst("\n".join(lines)).split("\n"), ""]


def _block(block: str) -> str:
    first = block.lstrip("\n")
    if first.lstrip().startswith(">>>"):
        return block
    if first.startswith("    "):
        return "::\n\n" + block
    return _inline(block)


def _inline(text: str) -> str:
    """Code and emphasis as they are written in reStructuredText, everything else without a meaning."""
    kept: list[str] = []

    def keep(markup: str) -> str:
        kept.append(markup)
        return f"\x00{len(kept) - 1}\x00"

    def code(match: re.Match[str]) -> str:
        before, _, body, after = match.groups()
        return (
            (before + "\x01" if before else "")
            + keep(f"``{' '.join(body.split())}``")
            + ("\x01" + after if after else "")
        )

    def emphasis(match: re.Match[str]) -> str:
        return match[1] if "\x00" in match[1] else keep(f"*{match[1]}*")

    text = _EMPHASIS.sub(emphasis, _CODE.sub(code, text))
    text = _SPECIAL.sub(r"\\\1", text).replace("\x01", "\\ ")
    return re.sub("\x00(\\d+)\x00", lambda match: kept[int(match[1])], text)


def _check_names(app: Sphinx, env: Any) -> None:
    names, documented = public_names(), set(env.domains["py"].objects)
    shown = {id(value) for name, value in names.items() if name in documented}  # by one of its names
    missing = sorted(name for name, value in names.items() if id(value) not in shown)
    if missing:
        raise ExtensionError(f"{len(missing)} public names are on no page of docs/api: {', '.join(missing)}")


def _check_pages(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    for file in sorted(Path(app.outdir).rglob("*.html")):
        page = _Fetched()
        page.feed(file.read_text(encoding="utf-8"))
        if page.addresses:
            raise ExtensionError(
                f"{file}: fetches {sorted(page.addresses)}; the site has to work without a network"
            )


class _Fetched(HTMLParser):
    """What a page makes a browser fetch from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get("href" if tag == "link" else "src") or ""
        if re.match(r"(https?:)?//", address):
            self.addresses.add(address)
