"""What is of the wrong kind is said by an error of the library, with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.errors import CompressorError

NET = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
X = torch.rand(1, 3, 8, 8)
GRAPH = cp.capture(NET, X)
SCORES = cp.score(GRAPH, cp.scoring.Norm())
HALF = cp.budget.Macs(0.5)
PLAN = cp.plan(SCORES, HALF)
SMALL = cp.apply(NET, PLAN)


def one(_: nn.Module) -> float:
    return 1.0


CASES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a graph for scores": (lambda c: c.plan(GRAPH, HALF), "a budget needs scores, got Graph"),
    "a number for a budget": (lambda c: c.plan(SCORES, 0.5), "plan needs a budget such as budget.Macs"),
    "a model for a graph": (lambda c: c.score(NET, c.scoring.Norm()), "graph"),
    "a name for a scorer": (lambda c: c.score(GRAPH, "norm"), "function of .weight, axis."),
    "no inputs": (lambda c: c.prune(NET, budget=HALF), "inputs"),
    "a number for a function": (lambda c: c.prune(NET, X, budget=HALF, recover=3), "recover.* takes a func"),
    "scores for a plan": (lambda c: c.apply(NET, SCORES), "expected a Plan, got Scores"),
    "a path for a plan": (
        lambda c: c.apply(NET, "net.plan.json"),
        r"got str: Plan\.load\('net\.plan\.json'\) reads a file",
    ),
    "a forgotten plan": (lambda c: c.verify(NET, SMALL, X), "expected a Plan, got Tensor"),
    "models in the wrong order": (lambda c: c.verify(SMALL, NET, PLAN, X), "made for another"),
    "a plan of nothing": (lambda c: c.profiling.removed_by(GRAPH, 3), "removed_by needs a Plan, got int"),
    "a model for its graph": (lambda c: c.profiling.removed_by(NET, PLAN), "removed_by needs a captured"),
    "one flag for all units": (
        lambda c: c.profiling.macs(GRAPH).total([True]),
        r"each of the 8 units, got b",
    ),
    "a number for flags": (lambda c: c.profiling.costs(GRAPH, 3), "each of the 8 units, got int64"),
    "plans without names": (
        lambda c: c.search.frontier(GRAPH, [PLAN], evaluate=one),
        "mapping of names to plans, .* got list",
    ),
    "one cost for several": (
        lambda c: c.search.frontier(GRAPH, {"half": PLAN}, evaluate=one, by="macs"),
        r"by is a tuple of costs, such as \('macs',\)",
    ),
    "classes by number": (lambda c: c.export.Metadata(classes=3), "a sequence of names is expected"),
    "an axis alone": (lambda c: c.export.onnx(NET, X, "a.onnx", dynamic=0), "axes are expected"),
    "an axis in letters": (lambda c: c.export.onnx(NET, X, "a.onnx", dynamic="0"), "axes are expected"),
    "an axis of an input alone": (
        lambda c: c.export.onnx(NET, X, "a.onnx", dynamic={"input": 0}),
        "axes are expected",
    ),
    "a tolerance in words": (
        lambda c: c.export.onnx(NET, X, "a.onnx", tolerance="small"),
        "tolerance is a number",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_said(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, words = CASES[case]
    with pytest.raises(CompressorError, match=words):
        call(cp)
    assert not any(tmp_path.iterdir())


def test_flags_may_be_a_list() -> None:
    flags = [True] * 4 + [False] * 4
    assert cp.profiling.costs(GRAPH, flags) == cp.profiling.costs(GRAPH, GRAPH.plan(flags))


def test_a_model_without_units_takes_an_empty_list() -> None:
    graph = cp.capture(nn.Linear(4, 2), torch.rand(1, 4))
    assert graph.n_units == 0 and not graph.plan([]).cuts
    assert cp.profiling.costs(graph, []) == cp.profiling.costs(graph)
    with pytest.raises(CompressorError, match="each of the 8 units"):
        GRAPH.plan([])
