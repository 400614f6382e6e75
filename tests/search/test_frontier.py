"""Which points are beaten, held to a naive comparison; points of plans; the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import compressor as cp
from compressor.errors import FileError, InputError, PlanMismatchError
from compressor.search import Frontier, Point, frontier
from tests.search.conftest import Counting
from tests.search.evaluations import by_width

VALUES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(VALUES, st.sampled_from([("macs",), ("macs", "params")]))
def test_a_point_is_dominated_where_another_is_nowhere_worse_and_somewhere_better(
    values: list[tuple[int, int, int]], by: tuple[str, ...]
) -> None:
    points = tuple(Point(str(i), float(q), {"macs": m, "params": p}) for i, (q, m, p) in enumerate(values))
    found = Frontier(points, "q", by)
    for own, beaten in zip(points, found.dominated, strict=True):
        by_hand = False
        for other in points:
            pairs = [(other.costs[c], own.costs[c]) for c in by] + [(-other.quality, -own.quality)]
            by_hand |= all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
        assert beaten == by_hand
    assert len(found.best) == found.dominated.count(False) >= 1
    assert [p.costs["macs"] for p in found.best] == sorted(p.costs["macs"] for p in found.best)


def plans(net: torch.nn.Module, x: torch.Tensor) -> tuple[cp.Graph, dict[str, cp.Plan]]:
    scores = cp.score(cp.capture(net, x), cp.scoring.DEFAULT)
    return scores.graph, {f"{f:.0%}": cp.plan(scores, cp.budget.Macs(f)) for f in (0.75, 0.5)}


def test_points_of_plans_have_the_quality_and_costs_of_the_cut_models(net, x) -> None:
    graph, wanted = plans(net, x)
    found = frontier(graph, wanted, evaluate=by_width)
    assert [p.name for p in found.points] == ["original", "75%", "50%"]
    for p in found.points:
        small = net if p.plan is None else cp.apply(net, p.plan)
        assert p.quality == by_width(small)
        assert p.costs["macs"] == cp.profile(small, x).macs
        assert p.costs["params"] == sum(t.numel() for t in small.parameters())
    assert found.evaluation == "tests.search.evaluations.by_width"


def test_the_same_cut_is_asked_once_and_a_cache_keeps_it(net, x, counting: Counting, tmp_path: Path) -> None:
    graph, wanted = plans(net, x)
    twice = {**wanted, "again": wanted["50%"]}
    options = {"evaluate": counting, "cache": tmp_path / "c", "name": "widths"}
    found = frontier(graph, twice, **options)
    assert len(counting.asked) == 3
    assert found.points[3].quality == found.points[2].quality
    assert frontier(graph, twice, **options) == found
    assert len(counting.asked) == 3


def test_a_saved_frontier_is_read_again(net, x, tmp_path: Path) -> None:
    graph, wanted = plans(net, x)
    found = frontier(graph, wanted, evaluate=by_width, by=("macs", "peak_activation_bytes"))
    found.save(tmp_path / "f.json")
    assert Frontier.load(tmp_path / "f.json") == found
    text = (tmp_path / "f.json").read_text()
    (tmp_path / "f.json").write_text(text.replace('"75%"', '"76%"'))
    with pytest.raises(FileError, match="changed after it was written"):
        Frontier.load(tmp_path / "f.json")
    data = json.loads(json.dumps(found.to_dict()))
    data["by"] = ["joules"]
    with pytest.raises(FileError, match="no cost 'joules'"):
        Frontier.from_dict(data)


def test_what_makes_no_sense_is_refused(net, x) -> None:
    _, wanted = plans(net, x)
    with pytest.raises(InputError, match="at least one point"):
        Frontier((), "q")
    with pytest.raises(InputError, match=r"Point\(a: 1\) has no cost 'ms'; it has macs"):
        Frontier((Point("a", 1.0, {"macs": 1}),), "q", ("ms",))
    with pytest.raises(InputError, match="frontier needs a captured graph"):
        frontier(net, wanted, evaluate=by_width)
    with pytest.raises(PlanMismatchError):
        other = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 3))
        frontier(cp.capture(other, x), wanted, evaluate=by_width)
