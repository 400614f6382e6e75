"""Runs are kept one by one, and only runs that were made alike are gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.results import Table
from benchmarks.resuming import Row, go_on, kept, show

ALIKE = {"epochs": 2}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return tmp_path


def tables(rows: list[Row]) -> list[Table]:
    return [Table("Runs", ("run",), tuple((str(row["run"]),) for row in rows))]


def save(rows: list[Row]) -> object:
    return results.save("it", results.context("it", {}, seeds=[]), rows, tables(rows))


def run(key: int) -> Row:
    if key == 3:
        raise KeyboardInterrupt
    return {"run": key, "schedule": ALIKE}


def test_an_interruption_keeps_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = []

    def keep(row: Row) -> None:
        rows.append(row)
        save(rows)

    assert not go_on(0, [1, 2, 3, 4], run, keep, lambda row: f"run {row['run']}")
    assert kept("it", ALIKE) == rows == [run(1), run(2)]
    shown = capsys.readouterr().out
    assert "0 runs are done, 4 to go" in shown and "[2/4] run 2  0 CPU s" in shown and "goes on" in shown
    assert go_on(2, [4], run, keep, lambda row: "")
    assert [row["run"] for row in kept("it", ALIKE)] == [1, 2, 4]


def test_nothing_is_kept_where_nothing_ran(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kept("it", ALIKE) == []
    show("it", results.context("it", {}, seeds=[]), [], tables)
    assert not [*folder.iterdir()] and "written" not in capsys.readouterr().out


@pytest.mark.parametrize(("under", "settings"), [("schedule", {"epochs": 3}), ("lengths", {})])
def test_runs_that_were_made_otherwise_are_refused(under: str, settings: dict[str, Any]) -> None:
    save([{"run": 1, under: settings}])
    with pytest.raises(SystemExit, match=r"it\.json holds runs with .* now \{'epochs': 2\} .* move the file"):
        kept("it", ALIKE, under=under)


def test_what_is_shown_is_written_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show("it", results.context("it", {}, seeds=[]), [{"run": 7}], tables)
    assert "Runs\nrun\n---\n7" in capsys.readouterr().out
    assert "| 7 |" in (folder / "it.md").read_text()
