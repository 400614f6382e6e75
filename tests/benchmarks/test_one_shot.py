"""How the one-shot benchmark compares runs and goes on after an interruption."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch_pruning")

from benchmarks import one_shot, results, resuming
from benchmarks.accuracy_tables import DENSE
from benchmarks.methods import Method

OPTIONS = argparse.Namespace(
    quick=False, calibration=64, test=4, fractions=[0.5, 0.3], seeds=[0, 1], scorers=None
)
OURS = Method("ours", "Norm(2)", "inner", "global")
PEER = Method("torch-pruning", "Norm(2)", "inner", "global")


def row(method: Method, fraction: float, *, seed: int = 0, **rights: str) -> dict[str, Any]:
    images = {"calibration": 64, "test": 4}
    return {
        **vars(method),
        "fraction": fraction,
        "seed": seed,
        "images": images,
        "macs_left": 0.5,
        "right": rights,
    }


def test_every_scorer_is_run_and_chance_with_every_seed() -> None:
    keys = one_shot._keys(OPTIONS)
    assert keys[0] == (DENSE, 1.0, 0)
    assert {method.scorer for method, _, _ in keys[1:] if method.library == "ours"} == set(one_shot.SCORERS)
    random = [seed for method, fraction, seed in keys if method.scorer == "Random" and fraction == 0.5]
    assert random == [0, 1]
    assert len(set(keys)) == len(keys)
    some = argparse.Namespace(**{**vars(OPTIONS), "scorers": ["Taylor"]})
    assert {method.scorer for method, _, _ in one_shot._keys(some)[1:]} == {"Taylor"}


def test_runs_that_are_done_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.write_json(tmp_path / "one_shot.json", {"rows": [row(OURS, 0.5, as_cut="0011")]})
    done = resuming.kept("one_shot", one_shot._images(OPTIONS), under="images")
    keys = one_shot._keys(OPTIONS)
    left = [key for key in keys if not any(one_shot._is(found, key) for found in done)]
    assert set(keys) - set(left) == {(OURS, 0.5, 0)}
    other = argparse.Namespace(**{**vars(OPTIONS), "calibration": 128})
    with pytest.raises(SystemExit, match="'calibration': 64"):
        resuming.kept("one_shot", one_shot._images(other), under="images")


def test_the_table_ranks_by_the_last_stage_and_pairs_with_the_whole_network() -> None:
    rows = [
        row(DENSE, 1.0, as_cut="1111", norms="1111", reconstructed="1111"),
        row(PEER, 0.5, as_cut="0000", norms="0011"),
        row(OURS, 0.5, as_cut="0000", norms="0001", reconstructed="0111"),
    ]
    failed = {**row(Method("ours", "CHIP", "inner", "global"), 0.5), "failure": "ScoreError: no"}
    del failed["right"], failed["macs_left"]
    (table,) = one_shot.tables([*rows, failed])
    assert [cells[0] for cells in table.rows] == ["none", "ours", "torch-pruning", "ours"]
    lost = [cells[table.columns.index("lost")] for cells in table.rows]
    assert lost == ["-", "+25.0 ± 25.0", "+50.0 ± 28.9", "-"]
    assert table.rows[2][table.columns.index("reconstructed %")] == "-"
    assert table.rows[3][-1] == "ScoreError: no"
