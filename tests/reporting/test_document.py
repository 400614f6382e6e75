"""The report as a value, and the one file it is written to."""

from __future__ import annotations

import json
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from compressor.errors import ExportError, InputError
from compressor.reporting import Report

# Elements that have no end.
VOID = {"meta"}


class Nesting(HTMLParser):
    """Complains where an end does not fit the last start."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_nested_and_refers_to_nothing_outside(full: Report) -> None:
    page = Nesting()
    page.feed(full.html())
    assert page.open == []
    assert not page.seen & {"script", "link", "img", "iframe", "object"}
    links = [value for name, value in page.attributes if name in ("href", "src", "action")]
    assert links == [f"#{section.key}" for section in full.sections]
    assert not re.search(r"url\(|@import|https?:", full.html())


def test_all_sections_are_there_in_their_order(full: Report) -> None:
    keys = [
        "summary",
        "costs",
        "channels",
        "scores",
        "sensitivity",
        "frontier",
        "filters",
        "certificate",
        "plan",
    ]
    assert [section.key for section in full.sections] == keys
    assert re.findall(r'<section id="(\w+)"', full.html()) == keys
    assert full.to_markdown().count("\n## ") == len(keys)


def test_the_data_is_strict_json(full: Report) -> None:
    text = json.dumps(full.to_dict(), allow_nan=False)
    assert list(json.loads(text)) == ["title", *(section.key for section in full.sections)]


def test_a_report_is_a_value_without_models(full: Report) -> None:
    copy = pickle.loads(pickle.dumps(full))
    assert copy == full and copy.html() == full.html()
    assert str(full) == full.to_markdown()


def test_a_section_is_found_by_its_key(full: Report) -> None:
    assert full["plan"].title == "Plan"
    with pytest.raises(InputError, match="no section 'widths'; it has summary, costs"):
        full["widths"]


@pytest.mark.parametrize(
    ("name", "start"), [("a.html", "<!doctype html>"), ("b.HTM", "<!doctype"), ("c.md", "# Net")]
)
def test_the_ending_says_what_is_written(full: Report, tmp_path: Path, name: str, start: str) -> None:
    path = full.write(tmp_path / "new" / name)
    assert path.read_text(encoding="utf-8").startswith(start)
    assert list(path.parent.iterdir()) == [path]


def test_an_older_report_is_replaced(full: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    full.write(path)
    assert path.read_text(encoding="utf-8") == full.html()


def test_another_ending_is_refused(full: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.html or \.md, got '.*report\.pdf'"):
        full.write(tmp_path / "report.pdf")
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_nothing_is_left(full: Report, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot write the report"):
        full.write(tmp_path / "file" / "report.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ExportError, match="cannot write the report"):
        full.write(tmp_path / "folder.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]
