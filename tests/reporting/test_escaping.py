"""Whatever a name holds, it is read and never run."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from compressor.reporting.escaping import as_html, as_markdown, shortened

NASTY = "<script>alert(1)</script> \"a\" 'b' & &amp; | `c` *d* _e_ f_g [h](http://i) ![j](k)\n# l"


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_read_back_as_the_text_on_one_line() -> None:
    reader = Reader()
    reader.feed(f"<p>{as_html(NASTY)}</p>")
    reader.close()
    assert reader.tags == ["p"]
    assert reader.text == " ".join(NASTY.split())


def test_html_does_not_leave_an_attribute() -> None:
    assert '"' not in as_html(NASTY) and "'" not in as_html(NASTY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", "a\\|b"),
        ("<b>", "&lt;b&gt;"),
        ("encoder_layer_0.conv_1", "encoder_layer_0.conv_1"),
        ("_e_", "\\_e\\_"),
        ("[1, 3, 32, 32] float32", "[1, 3, 32, 32] float32"),
        ("![j](k)", "![j]\\(k)"),
        ("`c` *d* ~e~", "\\`c\\` \\*d\\* \\~e\\~"),
        ("&lt; R&D", "\\&lt; R\\&D"),
        ("a\\|b", "a\\\\\\|b"),
        ("a\n# b", "a # b"),
    ],
)
def test_markdown_escapes_what_is_markup_and_only_that(text: str, expected: str) -> None:
    assert as_markdown(text) == expected


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\u202e", "\u200b", "\ud800"])
def test_what_cannot_be_seen_is_shown_as_a_mark(character: str) -> None:
    assert as_html(f"a{character}b") == as_markdown(f"a{character}b") == "a\ufffdb"


def test_a_long_name_keeps_its_end() -> None:
    assert shortened("layer1.0.conv1", 14) == "layer1.0.conv1"
    assert shortened("layer1.0.conv1", 6) == "…conv1"
