"""The benchmark of initial filters: its small mode, how it goes on, and what its tables say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import filter_init, results, resuming
from benchmarks.filter_init_runs import FIRST, FROZEN, REDRAWN, _others, plain_net, small_net

OPTIONS = argparse.Namespace(quick=True, parts=["first", "deep", "redraw"], seeds=[0, 1])


def row(arm: str, seed: int, accuracy: float, part: str = "first") -> dict[str, Any]:
    return {
        "part": part,
        "arm": arm,
        "labels": 100,
        "seed": seed,
        "schedule": filter_init._schedule(OPTIONS),
        "accuracy": accuracy,
        "losses": [2.0, 1.0],
    }


def test_the_small_mode_runs_every_arm_and_is_done_then(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["filter_init", "--quick", "--shared", str(shared)])
    assert filter_init.main() == 0
    out = capsys.readouterr().out
    assert "0 runs are done, 28 to go" in out and "Degenerate filters of a pruned ResNet-20" in out
    kept = results.read("filter_init-quick")
    assert kept is not None and len(kept["rows"]) == 28
    redrawn = {one["arm"]: one for one in kept["rows"] if one["part"] == "redraw"}
    assert {one["degenerate"] for one in redrawn.values()} == {11}
    assert redrawn["He"]["degenerate_after"] == 0 < redrawn["left as they are"]["degenerate_after"]
    assert filter_init.main() == 0
    assert "28 runs are done, 0 to go" in capsys.readouterr().out


def test_without_the_data_it_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["filter_init", "--quick", "--shared", str(tmp_path)])
    assert filter_init.main() == 0
    assert (
        "skipped: the shared folder lacks data/cifar10/cifar10_jpegq75_10k2k.npz" in capsys.readouterr().out
    )


def test_every_arm_is_run_once_for_each_seed() -> None:
    jobs = filter_init.jobs(OPTIONS)
    assert len(jobs) == len(set(jobs)) == 2 * 28
    assert {job.arm for job in jobs if job.part == "first"} > {name + FROZEN for name in FIRST}


def test_runs_of_another_schedule_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    other = {**row("He", 0, 0.5), "schedule": {"labels": [7]}}
    results.write_json(tmp_path / "filter_init-quick.json", {"rows": [other]})
    with pytest.raises(SystemExit, match=r"'labels': \[7\]"):
        resuming.kept("filter_init-quick", filter_init._schedule(OPTIONS))


def test_differences_are_paired_by_seed() -> None:
    rows = [row("He", seed, 0.3 + 0.1 * seed) for seed in range(3)]
    rows += [row("DCT", seed, 0.32 + 0.1 * seed) for seed in range(3)]
    (table,) = filter_init.tables(rows)
    lines = {line[0]: line[1:] for line in table.rows}
    assert lines["He"][:2] == ("40.0 ± 10.0", "")
    assert lines["DCT"][:2] == ("42.0 ± 10.0", "**+2.0 ± 0.0**")
    assert lines["DCT"][-1] == "3"
    assert lines["PCA"] == ("-", "-", "-", "-", "0")


def test_an_interval_around_zero_is_not_bold() -> None:
    # By hand: mean 0, standard deviation 1, 4.303 / sqrt(3) = 2.5.
    assert filter_init._gain([-1.0, 0.0, 1.0]) == "+0.0 ± 2.5"


def test_the_control_draws_as_many_others() -> None:
    flags = torch.tensor([True, False, True, False, False, False])
    others = _others(flags, seed=0)
    assert int(others.sum()) == 2 and not bool((others & flags).any())
    assert next(iter(REDRAWN)) == filter_init.BASELINES["redraw"]


def test_the_networks_are_what_the_tables_say() -> None:
    x = torch.zeros(2, 3, 32, 32)
    assert small_net()(x).shape == (2, 10) and plain_net()(x).shape == (2, 10)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in plain_net()) == 24
    macs = 16 * 16 * 75 * 24 + 8 * 8 * 9 * 24 * 48 + 48 * 16 * 10
    assert round(macs / 1e6, 1) == 1.1
