"""The search benchmark in its quick mode, and how it goes on and shows what it found."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")
pytest.importorskip("torch_pruning")  # the tables share columns with the comparison to it

from benchmarks import results, search


def test_the_quick_mode_runs_and_does_not_repeat_itself(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["search", "--quick", "--images", "32", "--shared", str(shared)])
    assert search.main() == 0
    rows = (results.read("search-quick") or {})["rows"]
    assert [row["method"] for row in rows] == [search._DENSE, *search.METHODS]
    assert all(row["macs_left"] <= 0.5 for row in rows[1:])
    by_name = {row["method"]: row for row in rows}
    # What Optuna starts from is asked the same images.
    assert by_name["Optuna"]["quality"] >= max(row["quality"] for row in rows[1:-1])
    assert search.main() == 0
    assert "7 runs are done, 0 to go" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["search", "--quick", "--images", "48", "--shared", str(shared)])
    with pytest.raises(SystemExit, match=r"'images': 32.*'images': 48"):
        search.main()


OPTIONS = argparse.Namespace(
    network="resnet20_cifar", images=4, test=4, ratios=[0.5], trials=9, stages=["as cut"], seeds=[0, 1]
)


def row(method: str, right: str, *, fraction: float = 0.5, seed: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "stage": "as cut",
        "method": method,
        "fraction": fraction,
        "seed": seed,
        "asked": search._asked(OPTIONS),
        "macs_left": fraction,
        "quality": right.count("1") / 4,
        "predicted_drop": None,
        "right": {"as cut": right},
        "cpu_s": 2.0,
        "sensitivity_cpu_s": 3.0,
        **more,
    }


def test_the_table_pairs_with_the_global_ranking_and_means_over_seeds() -> None:
    rows = [
        row(search._DENSE, "1111", fraction=1.0),
        row("global", "0001"),
        row("least drop", "0011", predicted_drop=0.25),
        row("Optuna", "0011"),
        row("Optuna", "0111", seed=1),
    ]
    (table,) = search.tables(rows)
    assert table.title == "50 % of the MACs removed, as cut"
    shown = {cells[0]: dict(zip(table.columns, cells, strict=True)) for cells in table.rows}
    assert shown["least drop"]["against global"].startswith("+25.0 ±")
    assert shown["least drop"]["predicted drop"] == "25.0"
    assert shown["Optuna"]["test %"].startswith("62.5 ±")
    assert shown["Optuna"]["against global"].startswith("+37.5 ±")
    assert shown["Optuna"]["asked %"] == "50.0-75.0"
    assert shown["global"]["against global"] == "-"


def test_only_chance_is_repeated_with_every_seed() -> None:
    keys = search._keys(argparse.Namespace(**{**vars(OPTIONS), "fractions": [0.5]}))
    assert [key[3] for key in keys if key[1] == "Optuna"] == [0, 1]
    assert len(set(keys)) == len(keys) == 1 + 5 + 2
