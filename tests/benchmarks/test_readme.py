"""Every measured number of the README is what the kept results say, and has a command."""

from __future__ import annotations

import functools
import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks import readme, results
from benchmarks.readme import STATEMENTS, Statement, in_one_line
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SAID = in_one_line(README)

# Numbers that nothing here measures: names, versions, counts of what is there, other people's claims.
NOT_MEASURED = (
    "Python 3.11 or newer",
    "| 500 unseen digits |",
    "ResNet-20…110 for CIFAR",
    "the 3-D clutter filter",
    "a 360-pixel screen",
    "claims 79 % less memory and 72 % less time",
    "PneumoniaMNIST 1:9",
)


@functools.cache
def texts_of(statement: Statement) -> tuple[str, ...]:
    return statement.texts()


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.about)
def test_the_readme_says_what_the_results_say(statement: Statement) -> None:
    texts = texts_of(statement)
    assert texts
    assert [text for text in texts if text not in SAID] == []


def test_every_number_of_the_readme_is_measured_or_known_not_to_be() -> None:
    left = re.sub(r"```.*?```", " ", README, flags=re.DOTALL)
    left = in_one_line(re.sub(r"^    .*$", " ", left, flags=re.MULTILINE))
    for text in (*(text for s in STATEMENTS for text in texts_of(s)), *NOT_MEASURED):
        assert text in left, f"not in the README: {text}"
        left = left.replace(text, " ")
    left = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", left)
    found = [left[max(0, m.start() - 40) : m.end() + 20] for m in re.finditer(r"(?<![\w.-])\d", left)]
    assert found == [], "read them from results in benchmarks/readme/, or name them in NOT_MEASURED"


def test_a_result_that_changes_contradicts_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (statement,) = (statement for statement in STATEMENTS if statement.files == ("dead_filters",))
    content = json.loads((results.FOLDER / "dead_filters.json").read_text(encoding="utf-8"))
    content["rows"][1]["dead"]["folded"]["inside"] += 1
    (tmp_path / "dead_filters.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert [text in SAID for text in statement.texts()] == [False]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.about)
def test_the_command_is_one_that_is_there(statement: Statement) -> None:
    for command in statement.command.split("; "):
        python, *words = shlex.split(command)
        file = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
        assert python == "python" and (ROOT / file).is_file()


def test_the_table_of_the_page_shows_every_statement() -> None:
    lines = readme.table().splitlines()
    for statement in STATEMENTS:
        assert any(f"`{statement.command}`" in line and statement.links() in line for line in lines)
