"""How the benchmark of filter quality compares runs and goes on after an interruption."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import filter_quality, results, resuming
from benchmarks.filter_quality import DENSE, REFERENCE, SCORERS, answers, gain

NET = "resnet20_cifar"


def bits(right: str) -> str:
    return f"{int('1' + right, 2):x}"


def row(scorer: str, fraction: float, right: str, *, seed: int = 0, **changed: Any) -> dict[str, Any]:
    options = filter_quality._options(["--networks", NET])
    found = {"network": NET, "scorer": scorer, "order": "global", "fraction": fraction, "seed": seed}
    rights = {"as_cut": bits(right), "norms": bits(right)}
    schedule = filter_quality.schedule(options)
    return {**found, "tuned": False, "schedule": schedule, "macs_left": fraction, "right": rights, **changed}


def test_answers_come_back_from_the_file_as_they_were() -> None:
    for right in ("0011", "1", "000000", "10" * 20):
        assert answers(row("norm", 0.5, right), "norms") == list(map(int, right))


def test_a_gain_is_paired_image_by_image() -> None:
    mine = {0.5: [row("norm", 0.5, "1100"), row("norm", 0.5, "1110")], 0.3: [row("norm", 0.3, "1000")]}
    base = {0.5: [row(REFERENCE, 0.5, "1000")], 0.3: [row(REFERENCE, 0.3, "0000")]}
    # By hand: means over fractions 1, .5, .25, 0 less .5, 0, 0, 0: .5, .5, .25, 0, their deviation 0.2394.
    assert gain(mine, base, "norms") == "+31.2 ± 12.0"
    assert gain(mine, {0.5: [], 0.3: []}, "norms") == "-"


def test_every_scorer_is_run_and_only_some_with_other_orders_and_fine_tuning() -> None:
    options = filter_quality._options(["--networks", NET])
    found = filter_quality.keys(options)
    assert found[0]["scorer"] == DENSE and found[0]["tuned"]
    dead = [key for key in found if key["order"] == filter_quality.DEAD]
    assert [key["scorer"] for key in dead] == ["dead units", "Random", "Random", "Random"]
    found = [key for key in found if key not in dead]
    assert {key["scorer"] for key in found[1:]} == set(SCORERS)
    assert {key["scorer"] for key in found if key["order"] == "degeneracy"} == set(filter_quality._FEW)
    assert {key["fraction"] for key in found[1:] if key["tuned"]} == {0.5}
    assert {key["seed"] for key in found if key["scorer"] == "Random"} == {0, 1, 2}
    assert {key["seed"] for key in found if key["scorer"] != "Random"} == {0}


def test_runs_that_are_done_are_not_repeated_unless_they_lack_the_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    untuned, tuned = row("norm", 0.5, "01"), row("WHC", 0.5, "01", tuned=True)
    results.write_json(tmp_path / "filter_quality.json", {"rows": [untuned, tuned]})
    options = filter_quality._options(["--networks", NET])
    rows = resuming.kept("filter_quality", filter_quality.schedule(options))
    left = [key for key in filter_quality.keys(options) if not any(filter_quality._is(r, key) for r in rows)]
    at_half = {(key["scorer"], key["order"]) for key in left if key["fraction"] == 0.5}
    assert ("norm", "global") not in at_half and ("WHC", "global") not in at_half
    assert not filter_quality._is(untuned, {**untuned, "tuned": True})
    with pytest.raises(SystemExit, match="'calibration': 512"):
        resuming.kept(
            "filter_quality", filter_quality.schedule(filter_quality._options(["--calibration", "64"]))
        )


def test_tables_have_a_row_for_each_method_and_a_column_for_each_fraction() -> None:
    whole = row(DENSE, 1.0, "1111", order="-")
    rows = [whole, row(REFERENCE, 0.5, "1100"), row("norm", 0.5, "1000"), row(REFERENCE, 0.3, "1000")]
    rows += [row("Random", 0.5, "0000", seed=0), row("Random", 0.5, "1000", seed=1)]
    rows += [row("dead units", 1.0, "1110", order=filter_quality.DEAD)]
    dead, *others = filter_quality.tables(rows)
    assert dead.rows[1] == ("dead units", "0", "1.000", "75.0", "1")
    titles = {table.title.split(",")[1].strip(): table for table in others}
    assert set(titles) == {"criteria", "terms", "budgets"}
    assert titles["criteria"].columns[2:4] == ("0.5", "0.3")
    by_name = {cells[0]: cells for cells in titles["terms"].rows}
    assert by_name[DENSE][2:4] == ("100.0", "100.0")
    assert by_name[REFERENCE][2:5] == ("50.0", "25.0", "")
    assert by_name["norm"][2:5] == ("25.0", "-", "-25.0 ± 25.0")
    assert by_name["Random"][2] == "12.5" and by_name["Random"][-1] == "2"


def test_without_the_data_it_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["filter_quality", "--quick", "--shared", str(tmp_path)])
    assert filter_quality.main() == 0
    assert "skipped: the shared folder lacks data/ckpt_cifar10_resnet" in capsys.readouterr().out


def test_the_small_mode_runs_and_goes_on_where_it_stopped(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    words = ["filter_quality", "--quick", "--test", "40", "--shared", str(shared)]
    monkeypatch.setattr(sys, "argv", [*words, "--scorers", "FilterQuality, distinct"])
    assert filter_quality.main() == 0
    assert "0 runs are done, 9 to go" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*words, "--scorers", "FilterQuality, distinct", "norm"])
    assert filter_quality.main() == 0
    assert "9 runs are done, 1 to go" in capsys.readouterr().out
    kept = results.read("filter_quality-quick")
    assert kept is not None
    orders = {r["order"]: r for r in kept["rows"] if r["scorer"] == "FilterQuality, distinct"}
    assert set(orders) == set(filter_quality.ORDERS)
    whole, dead = (next(r for r in kept["rows"] if r["scorer"] == name) for name in (DENSE, "dead units"))
    assert dead["macs_left"] < 1 and answers(dead, "as_cut") == answers(whole, "as_cut")
    assert all(r["macs_left"] <= 0.5 and len(answers(r, "tuned")) == 40 for r in orders.values())
