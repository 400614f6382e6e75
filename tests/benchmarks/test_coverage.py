"""The runner of the coverage benchmark: limits, and going on where it stopped."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import coverage, results, supported
from benchmarks.zoo import BATCH, Entry, Inputs


def entry(name: str, seconds: float = 0.0) -> Entry:
    def build(seed: int) -> tuple[nn.Module, Inputs]:
        time.sleep(seconds)
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))
        return net.eval(), Inputs((torch.randn(BATCH, 5),))

    return Entry("tests", "nets", name, build)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> argparse.Namespace:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["coverage", "--limit", "20"])
    return coverage._options()


def test_what_this_code_has_done_is_not_done_again(
    options: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    coverage._run("tests", [entry("one")], options)
    rows = coverage._run("tests", [entry("one"), entry("two")], options)
    assert [row["network"] for row in rows] == ["two"]
    assert capsys.readouterr().out.count("one") == 1
    kept = results.read("coverage-tests")
    assert kept is not None
    assert [(row["network"], row["status"]) for row in kept["rows"]] == [("one", "exact"), ("two", "exact")]


def test_other_code_and_fresh_runs_do_it_again(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    coverage._run("tests", [entry("one")], options)
    options.fresh = True
    assert len(coverage._run("tests", [entry("one")], options)) == 1
    options.fresh = False
    monkeypatch.setattr(coverage, "_code", lambda: "changed")
    assert len(coverage._run("tests", [entry("one")], options)) == 1
    options.failed = True
    monkeypatch.setattr(coverage, "_code", lambda: "changed again")
    assert coverage._run("tests", [entry("one")], options) == []


def test_a_network_beyond_the_limit_was_not_run(options: argparse.Namespace) -> None:
    options.limit = 0.5
    (row,) = coverage._run("tests", [entry("slow", seconds=30.0)], options)
    assert row["status"] == "not run"
    assert row["refused"] == "time limit in build"


def test_the_page_counts_and_gives_reasons(options: argparse.Namespace) -> None:
    coverage._run("tests", [entry("one")], options)
    text = supported.page({"tests": results.read("coverage-tests") or {}})
    assert "| tests | 1 | 1 | 0 | 0 | 0 | 0 | 0 |" in text
    assert "| nets | one | 12 | 100% | exact |" in text
    assert "it is an output" not in text


def test_rows_of_networks_that_are_not_asked_for_stay(options: argparse.Namespace) -> None:
    coverage._run("tests", [entry("one"), entry("two")], options)
    options.fresh = True
    coverage._run("tests", [entry("two")], options)  # as a small mode has it
    kept = results.read("coverage-tests")
    assert kept is not None and [row["network"] for row in kept["rows"]] == ["one", "two"]
