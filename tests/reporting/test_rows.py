"""Pictures in rows: what is drawn, and what of it Markdown can say."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from compressor.reporting.rows import Row, Rows, bar, line


def test_the_picture_is_well_formed_and_holds_a_strip_for_each_row() -> None:
    rows = Rows("widths", (Row("a<b", "1", bar("kept", 0, 50)), Row("c", "2", bar("kept", 0, 100))), height=9)
    drawn = ElementTree.fromstring(rows.html()).find("div")
    assert drawn is not None and drawn.get("aria-label") == "widths"
    assert [row.findtext("title") for row in drawn] == [row.get("aria-label") for row in drawn]
    assert [row.findtext("title") for row in drawn] == ["a<b: 1", "c: 2"]
    for row in drawn:
        strip = row.find("svg")
        assert strip is not None
        bottom = float(strip.get("y", "")) + float(strip.get("height", ""))
        assert float(row.findall("text")[0].get("y", "")) < float(strip.get("y", ""))
        assert bottom < float(row.get("height", ""))


def test_a_bar_without_an_extent_is_not_drawn() -> None:
    assert bar("kept", 0, 0) == bar("kept", 0, 10, 0, 0) == ""
    assert line("curve", [(0, 1), (2.5, 3)]) == '<polyline class="curve" points="0.00,1.00 2.50,3.00"/>'


def test_markdown_has_a_fence_that_no_name_closes() -> None:
    lines = Rows("", (Row("a```b", "8 → 4", "", "██"), Row("c", "16", "", "█"))).markdown().split("\n")
    assert lines == ["``````text", "a```b  8 → 4  ██", "c         16  █", "``````"]


def test_markdown_leaves_out_what_only_a_picture_says() -> None:
    assert Rows("", (Row("a", "1", bar("kept", 0, 1)),)).markdown() == ""
