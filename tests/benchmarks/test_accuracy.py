"""How the accuracy benchmark compares runs and goes on after an interruption."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch_pruning")

from benchmarks import accuracy, results
from benchmarks.methods import Method, chosen

OPTIONS = argparse.Namespace(
    quick=True, epochs=1, train=64, test=8, rate=0.1, seeds=[0, 1], fractions=[0.5], peers="magnitude"
)


def row(method: Method, right: str, *, seed: int = 0, **changed: Any) -> dict[str, Any]:
    schedule = {"epochs": 1, "train": 64, "test": 8, "rate": 0.1}
    stages = dict.fromkeys(accuracy.STAGES, right)
    facts = {"macs_left": 0.5, "params_left": 0.4, "right": stages, "schedule": schedule}
    return {**vars(method), "fraction": 0.5, "seed": seed, **facts, **changed}


OURS = Method("ours", "Norm(2)", "inner", "global")
PEER = Method("torch-pruning", "Norm(2)", "inner", "global")


def test_the_difference_is_paired_image_by_image() -> None:
    # +1 on two images, -1 on one, 0 on one: mean 1/4, variance (2 * 9/16 + 25/16 + 1/16) / 3
    assert accuracy.difference([row(OURS, "1101")], [row(PEER, "0011")]) == "+25.0 ± 47.9"


def test_runs_of_different_seeds_are_not_compared() -> None:
    assert accuracy.difference([row(OURS, "1101", seed=1)], [row(PEER, "0011", seed=0)]) == "-"


def test_runs_that_are_done_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    keys = accuracy._keys(OPTIONS)
    assert len(keys) == 2 * (1 + len(chosen(quick=True, peers="magnitude")))
    results.write_json(tmp_path / "accuracy-quick.json", {"rows": [row(OURS, "1101")]})
    done = accuracy._done("accuracy-quick", OPTIONS)
    left = [key for key in keys if not any(accuracy._is(found, key) for found in done)]
    assert set(keys) - set(left) == {(OURS, 0.5, 0)}


def test_runs_of_another_schedule_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.write_json(tmp_path / "accuracy.json", {"rows": [row(OURS, "1", schedule={"epochs": 9})]})
    with pytest.raises(SystemExit, match="'epochs': 9"):
        accuracy._done("accuracy", OPTIONS)


def test_a_failure_is_a_row_of_its_own() -> None:
    failed = {**row(PEER, "0011"), "failure": "IndexError: 5"}
    del failed["right"], failed["macs_left"], failed["params_left"]
    (table,) = accuracy.tables([row(OURS, "1101"), failed])
    assert table.rows[1][-1] == "IndexError: 5"
