"""Tables and the context of a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import results

TABLE = results.Table("Nets", ("net", "ms", "note"), (("a|b", "7", "x"), ("c", "10", "")), ("n",), (0, -1))


def test_words_stand_left_and_numbers_right() -> None:
    assert TABLE.text() == "Nets\nnet  ms  note\n-------------\na|b   7  x\nc    10\nn"


def test_a_bar_in_a_cell_does_not_split_the_markdown_cell() -> None:
    assert TABLE.markdown().splitlines()[2:5] == [
        "| net | ms | note |",
        "| :--- | ---: | :--- |",
        "| a\\|b | 7 | x |",
    ]


def test_the_context_names_no_path_and_the_command_repeats_the_run() -> None:
    options = {"quick": True, "models": ["a", "b"], "one": None, "shared": "/home/me/data", "n": 3}
    facts = results.context("speed", options, seeds=[0])
    assert facts["command"] == "python -m benchmarks.speed --quick --models a b --n 3"
    assert "/home" not in json.dumps(facts)


def test_what_is_saved_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert results.read("it") is None
    results.save("it", results.context("it", {}, seeds=[1]), [{"macs": 3}], [TABLE])
    content = results.read("it")
    assert content is not None and content["rows"] == [{"macs": 3}]
    assert "| c | 10 |  |" in (tmp_path / "it.md").read_text(encoding="utf-8")
