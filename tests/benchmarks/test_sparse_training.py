"""How the benchmark of sparse training goes on after an interruption, and what its tables say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results, sparse_training

OPTIONS = argparse.Namespace(epochs=1, tuning=1, train=64, test=4, rate=0.1, fraction=0.5)


def row(method: str, seed: int, right: str, **changed: Any) -> dict[str, Any]:
    facts = {
        "macs_left": 0.5,
        "planned_scale": 0.0,
        "kept_scale": 0.9 + 0.1 * seed,
        "kept_scale_before": 1.0,
        "logit_change": 1e-6 * (1 + seed),
        "removed": [1],
        "right": dict.fromkeys(sparse_training.STAGES, right),
    }
    return {
        "method": method,
        "seed": seed,
        "schedule": sparse_training._schedule(OPTIONS),
        **facts,
        **changed,
    }


def test_intervals_are_students() -> None:
    # By hand: standard deviation 1, 4.303 / sqrt(3).
    assert sparse_training.interval([90.0, 91.0, 92.0]) == "91.0 ± 2.5"
    assert sparse_training.interval([90.0]) == "90.0" and sparse_training.interval([]) == "-"


def test_a_method_is_one_row_over_its_seeds() -> None:
    runs = [row("mask, proximal", 0, "1100"), row("mask, proximal", 1, "1100"), row("no penalty", 0, "1000")]
    (table,) = sparse_training.tables({"runs": runs, "steps": {}})
    assert table.rows[0] == (
        *(
            "mask, proximal",
            "0.500",
            "0.950",
            "0",
            "50.0 ± 0.0",
            "50.0 ± 0.0",
            "2.0e-06",
            "50.0 ± 0.0",
            "2",
            "",
        ),
    )
    assert table.rows[1][-2] == "1"


def test_a_failure_is_shown_with_what_is_known() -> None:
    failed = row("mask, proximal", 0, "1", failure="InputError: loud")
    del failed["right"], failed["logit_change"]
    (table,) = sparse_training.tables({"runs": [failed], "steps": {}})
    assert table.rows[0][-1] == "InputError: loud"


def test_runs_of_another_schedule_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    rows = {"runs": [row("no penalty", 0, "1", schedule={"epochs": 9})], "steps": {}}
    results.write_json(tmp_path / "sparse_training.json", {"rows": rows})
    with pytest.raises(SystemExit, match="'epochs': 9"):
        sparse_training._done("sparse_training", OPTIONS)


def test_the_ratio_of_steps_is_of_pairs() -> None:
    steps = {"mask, decay": [(1.0, 1.0), (1.1, 1.0), (2.4, 2.0)]}
    (table,) = sparse_training.tables({"runs": [], "steps": steps})
    assert table.rows[0][:4] == ("mask, decay", "1000", "+100.0", "1.100")


def test_what_was_not_measured_is_a_dash() -> None:
    first = row("cut first", 0, "11", logit_change=None, planned_scale=None)
    (table,) = sparse_training.tables({"runs": [first], "steps": {}})
    assert table.rows[0][3] == table.rows[0][6] == "-"


def test_every_mask_of_another_run_comes_after_it() -> None:
    names = list(sparse_training.METHODS)
    for name, method in sparse_training.METHODS.items():
        assert method.plan in ("first", "before", "after") or names.index(method.plan) < names.index(name)
