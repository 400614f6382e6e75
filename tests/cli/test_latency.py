"""Latency budgets on the command line, on a runtime whose times are arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.cli import deciding
from compressor.profiling import latency_table
from tests.profiling.latency_table.synthetic import Synthetic

NET = ("tiny_net:Tiny", "-i", "2x3x8x8")
RUNTIME = Synthetic(block=4, ms_per_macs=1.0)


@pytest.fixture(autouse=True)
def _synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        deciding, "OnnxRuntime", lambda threads: Synthetic(**{**vars(RUNTIME), "threads": threads})
    )


def test_latency_plans_what_the_library_plans(run, here: Path, tiny: nn.Module) -> None:
    options = ("--latency", "0.8", "--latency-table", "t.json", "-o", "net.plan.json")
    assert run("plan", *NET, *options).code == 0
    graph = cp.capture(tiny, torch.zeros(2, 3, 8, 8))
    table = latency_table(graph, runtime=RUNTIME, path=here / "t.json")
    expected = cp.plan(cp.score(graph, cp.scoring.Norm(power=2)), cp.budget.Latency(0.8, table))
    assert cp.Plan.load(here / "net.plan.json") == expected


def test_macs_with_fast_widths_round_to_the_table(run, here: Path, tiny: nn.Module) -> None:
    options = ("--macs", "0.7", "--fast-widths", "--latency-table", "t.json", "-o", "net.plan.json")
    assert run("plan", *NET, *options).code == 0
    graph = cp.capture(tiny, torch.zeros(2, 3, 8, 8))
    table = latency_table(graph, runtime=RUNTIME, path=here / "t.json")
    expected = cp.plan(cp.score(graph, cp.scoring.Norm(power=2)), cp.budget.Macs(0.7, round_to=table))
    assert cp.Plan.load(here / "net.plan.json") == expected


def test_latency_goes_together_with_other_fractions(run, here: Path, tiny: nn.Module) -> None:
    options = ("--latency", "0.9", "--params", "0.7", "--latency-table", "t.json", "-o", "net.plan.json")
    assert run("plan", *NET, *options).code == 0
    graph = cp.capture(tiny, torch.zeros(2, 3, 8, 8))
    table = latency_table(graph, runtime=RUNTIME, path=here / "t.json")
    both = cp.budget.All([cp.budget.Params(0.7), cp.budget.Latency(0.9, table)])
    expected = cp.plan(cp.score(graph, cp.scoring.Norm(power=2)), both)
    assert cp.Plan.load(here / "net.plan.json") == expected


def test_prune_measures_what_became_of_the_promise(run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = (*NET, "--latency", "0.8", "--latency-table", "t.json")
    kept = run("prune", *options, "-o", "small")
    assert kept.code == 0
    assert "promise" not in kept.words
    assert "promise of latency kept: 0.8 of it was to be left, 0." in kept.out
    monkeypatch.setattr(Synthetic, "ms", lambda *_: 1.0)
    broken = run("prune", *options, "-o", "other")
    assert broken.code == 0
    assert "promise of latency NOT kept: 0.8 of it was to be left, 1 is" in broken.words


def test_the_threads_of_the_runtime_are_part_of_the_table(run, here: Path) -> None:
    assert (
        run("plan", *NET, "--latency", "0.8", "--latency-table", "t.json", "--runtime-threads", "2").code == 0
    )
    assert "threads=2" in json.loads((here / "t.json").read_text())["identity"]["runtime"]


@pytest.mark.parametrize("fraction", ["0", "1", "1.5"])
def test_a_fraction_that_is_none_is_refused_before_anything_is_measured(
    run, here: Path, fraction: str
) -> None:
    outcome = run("plan", *NET, "--latency", fraction, "--latency-table", "t.json")
    assert outcome.code == 1
    assert "Latency(fraction)" in outcome.words
    assert not (here / "t.json").exists()


@pytest.mark.parametrize(
    ("name", "order"),
    [("where-it-pays", cp.budget.where_it_pays), ("score-per-ms", cp.budget.by_score_per_ms)],
)
def test_orders_of_time_are_measured(run, here: Path, tiny: nn.Module, name: str, order) -> None:
    options = ("--macs", "0.7", "--order", name, "--latency-table", "t.json", "-o", "net.plan.json")
    assert run("plan", *NET, *options).code == 0
    graph = cp.capture(tiny, torch.zeros(2, 3, 8, 8))
    table = latency_table(graph, runtime=RUNTIME, path=here / "t.json")
    budget = cp.budget.Macs(0.7, order=order(table))
    assert cp.Plan.load(here / "net.plan.json") == cp.plan(cp.score(graph, cp.scoring.Norm(power=2)), budget)
