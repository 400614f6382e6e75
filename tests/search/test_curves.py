"""Curves of sensitivity as a value: what they predict, tolerate and show; their file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import compressor as cp
from compressor.errors import FileError, InputError
from compressor.search import Curve, Sensitivity, sensitivity
from tests.search.evaluations import by_width, network

FOUND = Sensitivity(
    model="Net",
    weights="0f",
    scorer="Norm()",
    evaluation="accuracy",
    seed=0,
    quality=0.9,
    macs=1000,
    ratios=(0.1, 0.25, 0.5),
    curves=(
        Curve("conv1.weight", 8, (2, 4), (0.88, 0.6), (900, 700)),
        Curve("conv2.weight", 4, (1, 2), (0.91, 0.9), (950, 500)),
        Curve("fc.weight", 1, (), (), ()),
    ),
)


def test_the_table_shows_what_each_group_costs() -> None:
    assert str(FOUND).splitlines() == [
        "Net: accuracy 0.9; what it falls by when one group loses a ratio of its channels (Norm())",
        "group         ranks  0.1    0.25    0.5  freed",
        "conv1.weight      8    -   0.020  0.300    30%",
        "conv2.weight      4    -  -0.010  0.000    50%",
        "fc.weight         1    -       -      -      -",
    ]


def test_drops_are_straight_lines_that_never_fall() -> None:
    assert FOUND.curves[0].drops(0.9) == pytest.approx([0, 0.01, 0.02, 0.16, 0.3])
    assert FOUND.curves[1].drops(0.9).tolist() == [0, 0, 0]
    assert FOUND.curves[2].drops(0.9).tolist() == [0]


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=6).flatmap(
        lambda q: st.tuples(st.just(q), st.permutations(range(1, 20)))
    )
)
def test_drops_keep_to_what_was_measured_where_it_rises(case: tuple[list[float], list[int]]) -> None:
    quality, places = case
    lost = sorted(places[: len(quality)])
    drops = Curve("g", 21, tuple(lost), tuple(quality), tuple(lost)).drops(0.5)
    assert len(drops) == lost[-1] + 1
    assert (np.diff(drops) >= -1e-12).all()
    highest = 0.0
    for n, q in zip(lost, quality, strict=True):
        highest = max(highest, 0.5 - q)
        assert drops[n] == pytest.approx(highest)


def test_what_is_tolerated_was_measured_and_nothing_below_it_costs_more() -> None:
    assert FOUND.tolerated(max_drop=0.02 + 1e-9) == {
        "conv1.weight": 0.25,
        "conv2.weight": 0.5,
        "fc.weight": 0,
    }
    assert FOUND.tolerated(max_drop=0.29) == {"conv1.weight": 0.25, "conv2.weight": 0.5, "fc.weight": 0}
    assert FOUND.tolerated(max_drop=0.31)["conv1.weight"] == 0.5
    uneven = Curve("g", 8, (2, 4), (0.5, 0.9), (1, 1))
    assert replace(FOUND, curves=(uneven,)).tolerated(max_drop=0.1) == {"g": 0}


def test_macs_for_each_drop_come_with_the_most_worthwhile_first() -> None:
    found = FOUND.freed_per_drop(max_drop=0.5)
    assert list(found) == ["conv2.weight", "conv1.weight"]
    assert found["conv2.weight"] == float("inf")
    assert found["conv1.weight"] == pytest.approx(300 / 0.3)
    assert list(FOUND.freed_per_drop(max_drop=0)) == ["conv2.weight"]


@pytest.mark.parametrize("drop", [-0.1, float("nan"), float("inf"), "0.1", True])
def test_a_drop_that_is_none_is_refused(drop: object) -> None:
    with pytest.raises(InputError, match="what the quality may fall by"):
        FOUND.tolerated(max_drop=drop)  # type: ignore[arg-type]


def test_what_is_tolerated_is_a_limit_for_budgets() -> None:
    net, x = network(), torch.ones(1, 6)
    found = sensitivity(net, x, evaluate=by_width, ratios=(0.25, 0.5, 0.75))
    most = {name: ratio for name, ratio in found.tolerated(max_drop=0.3).items() if ratio}
    plan = cp.plan(cp.score(cp.capture(net, x), cp.scoring.DEFAULT), cp.budget.Macs(0.5, max_ratio=most))
    kept = {cut.tensor: len(cut.keep) for cut in plan.cuts if cut.role == "writer"}
    assert kept["0.weight"] >= 9
    assert kept["2.weight"] >= 10


def test_a_saved_value_is_read_again(tmp_path: Path) -> None:
    FOUND.save(tmp_path / "s.json")
    assert Sensitivity.load(tmp_path / "s.json") == FOUND
    assert Sensitivity.from_dict(json.loads(json.dumps(FOUND.to_dict()))) == FOUND
    assert [file.name for file in tmp_path.iterdir()] == ["s.json"]


def test_files_that_are_none_are_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    with pytest.raises(FileError, match="cannot read"):
        Sensitivity.load(file)
    FOUND.save(file)
    text = file.read_text()
    for content, words in (
        (text[:-20], "not complete JSON"),
        (text.replace("0.88", "0.89"), "changed after it was written"),
        (text.replace("compressor-sensitivity", "compressor-plan"), "is no file of the format"),
        (text.replace('"version": 1', '"version": 2'), "format version 2, expected 1"),
        ("[]", "is no file of the format"),
    ):
        file.write_text(content)
        with pytest.raises(FileError, match=words):
            Sensitivity.load(file)
    data = FOUND.to_dict()
    del data["curves"][0]["lost"]
    with pytest.raises(FileError, match="the data is no sensitivity: KeyError"):
        Sensitivity.from_dict(data)
    with pytest.raises(FileError, match="cannot write"):
        FOUND.save(tmp_path / "no" / "s.json")
