"""The counts of random examples: what was tried and what failed, kept round by round."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

from benchmarks import fuzzing, results
from tests.fuzz.drawing import Outcome


def check(data: st.DataObject) -> Outcome:
    number = data.draw(st.integers(0, 3))
    return Outcome("even" if number % 2 == 0 else "odd", f"net {number}", f"budget {number % 2}", None)


def broken(data: st.DataObject) -> Outcome:
    assert data.draw(st.integers(0, 100)) < 10, "at most nine"
    return Outcome("small", "net")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(fuzzing, "CHECKS", {"budgets": check})


def test_rounds_are_counted_once_and_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzzing", "--rounds", "2", "--examples", "30"])
    assert fuzzing.main() == 0
    first = (results.read("fuzzing") or {})["rows"]
    monkeypatch.setattr(sys, "argv", ["fuzzing", "--rounds", "3", "--examples", "30"])
    assert fuzzing.main() == 0
    kept = results.read("fuzzing") or {}
    assert kept["rows"][:2] == first and [row["seed"] for row in kept["rows"]] == [0, 1, 2]
    for row in kept["rows"]:
        assert sum(row["outcomes"].values()) == row["examples"] >= 4
        assert (row["networks"], row["budgets"], row["plans"], row["failures"]) == (4, 2, 0, [])
    examples = sum(row["examples"] for row in kept["rows"])
    assert kept["tables"][0]["rows"][-1][:6] == ["all", str(examples), "12", "6", "0", "0"]


def test_a_failure_is_kept_with_its_smallest_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzzing, "CHECKS", {"budgets": broken})
    monkeypatch.setattr(sys, "argv", ["fuzzing", "--rounds", "1", "--examples", "50"])
    assert fuzzing.main() == 1
    (row,) = (results.read("fuzzing") or {})["rows"]
    assert len(row["failures"]) == 1 and "at most nine" in row["failures"][0]
    assert "Draw 1: 10" in row["failures"][0]
    assert "at most nine" in capsys.readouterr().out
