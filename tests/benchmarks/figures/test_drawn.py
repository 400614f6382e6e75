"""What the figures of the results page show of a few numbers counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.collections import LineCollection

from benchmarks.figures import coverage, imbalanced, one_shot, phone, speed
from benchmarks.figures.canvas import write


def _speed(name: str, *ratios: float) -> dict[str, object]:
    rounds = [
        {"ours": {"cpu_s": 2 * ratio}, "theirs_": {"cpu_s": 2.0}, "theirs": {"cpu_s": 4.0}}
        for ratio in ratios
    ]
    return {"network": name, "rounds": rounds}


def test_the_fastest_network_comes_first_with_the_median_of_its_rounds(tmp_path: Path) -> None:
    kept = [{"rows": {"networks": [_speed("slow", 1.2, 0.9, 1.1), _speed("fast", 0.5, 0.7, 3.0)]}}]
    (axes,) = speed.ratios(kept).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fast", "slow"]
    assert [text.get_text() for text in axes.texts] == ["0.70", "1.10"]
    at = [[*line.get_xdata()] for line in axes.lines if len(line.get_xdata()) and line.get_marker() == "o"]
    assert at[:4] == [[0.7], [0.35], [1.1], [0.55]]


def test_a_figure_is_the_same_bytes_again_and_tells_other_numbers_apart(tmp_path: Path) -> None:
    kept = [{"rows": {"networks": [_speed("a", 0.5, 0.6)]}}]
    other = [{"rows": {"networks": [_speed("a", 0.5, 0.7)]}}]
    first = write(speed.ratios, kept, tmp_path / "1", "speed").read_bytes()
    assert write(speed.ratios, kept, tmp_path / "2", "speed").read_bytes() == first
    assert write(speed.ratios, other, tmp_path / "3", "speed").read_bytes() != first
    assert b"<dc:date>" not in first and b">0.55<" in first  # text stays text


def _outcomes(benchmark: str, *statuses: str) -> dict[str, Any]:
    rows = [{"source": "s", "status": status} for status in statuses]
    return {"context": {"command": f"python -m benchmarks.{benchmark}"}, "rows": rows}


def test_bars_of_outcomes_are_as_long_as_networks_are_many() -> None:
    theirs = _outcomes("peer_coverage", *["exact"] * 3, *["fails"] * 4)
    figure = coverage.outcomes([theirs, _outcomes("coverage", *["exact"] * 7, *["wrong"] * 2)])
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["s, ours", "s, torch-pruning"]
    assert [bar.get_width() for bar in axes.patches] == [7, 3, 2, 0, 0, 4]


def test_an_outcome_that_nobody_thought_of_is_no_missing_bar() -> None:
    with pytest.raises(KeyError, match="odd"):
        coverage.outcomes([_outcomes("coverage", "odd")])


def _run(scorer: str, order: str, fraction: float, **right: str) -> dict[str, object]:
    library = "none" if scorer == "dense" else "ours"
    scope = "-" if scorer == "dense" else "inner"
    return {
        "library": library,
        "scorer": scorer,
        "order": order,
        "scope": scope,
        "fraction": fraction,
        "right": right,
    }


def test_a_scorer_is_shown_in_the_order_that_ends_best() -> None:
    rows = [_run("dense", "-", 1.0, as_cut="1111", norms="1111", reconstructed="1111")]
    for fraction in (0.5, 0.3):
        rows += [
            _run("A", "global", fraction, as_cut="1000", norms="1100", reconstructed="1100"),
            _run("A", "uniform", fraction, as_cut="0000", norms="1100", reconstructed="1110"),
            _run("B", "global", fraction, as_cut="0000", norms="1000", reconstructed="1000"),
        ]
    left = one_shot.by_scorer([{"rows": rows}]).axes[0]
    assert [label.get_text() for label in left.get_yticklabels()] == ["A", "B"]
    assert [[*line.get_xdata()] for line in left.lines[:3]] == [[0, 0], [50, 25], [75, 25]]


def test_the_speed_up_is_divided_by_the_ratio_of_macs() -> None:
    small = {"macs": 4e6}
    names = [f"{cut}, {level}" for cut in ("pruned", "unrounded") for level in ("default", "extended")]
    measured = {name: {"speedup": 1.8 if name.startswith("pruned") else 1.2} for name in names}
    row = {
        "network": "net",
        "variants": {"baseline": {"macs": 8e6}, **dict.fromkeys(names, small)},
        "measured": {"default": measured, "extended": measured},
    }
    for axes in phone.macs_become_time([{"rows": [row]}]).axes:
        assert [*axes.lines[0].get_xdata()] == pytest.approx([0.9, 0.6])


def test_balanced_accuracy_has_the_t_interval_over_seeds() -> None:
    def row(method: str, fraction: float, confusion: str) -> dict[str, object]:
        return {
            "set": "S",
            "method": method,
            "fraction": fraction,
            "macs_left": fraction,
            "confusion": {"test": {"tuned": confusion}},
        }

    dense = [row("dense", 1.0, "4 0; 0 4"), row("dense", 1.0, "4 0; 0 4")]
    cut = [row("L1", 0.4, "3 1; 0 2"), row("L1", 0.4, "4 0; 0 2")]  # 87.5 and 100 %
    (axes,) = imbalanced.by_criterion([{"rows": [*dense, *cut]}]).axes
    ((segment,),) = [bar.get_segments() for bar in axes.collections if isinstance(bar, LineCollection)]
    half = 12.706 * 6.25  # t(0.975, 1) · s / √2, s = 8.84
    assert segment[:, 0].tolist() == pytest.approx([93.75 - half, 93.75 + half], rel=1e-3)
