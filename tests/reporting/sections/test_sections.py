"""What each section says, against numbers counted by hand or taken from elsewhere in the library."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.profiling import Timing
from compressor.reporting import Report, Section
from compressor.reporting.blocks import Folded, Table, Text, Tiles
from compressor.reporting.sections.plan import ranges
from compressor.search import Curve
from tests.reporting.conftest import REMOVED, TIMES, Cut


def tables(section: Section) -> list[Table]:
    found = [
        inner
        for block in section.blocks
        for inner in (block.blocks if isinstance(block, Folded) else [block])
    ]
    return [block for block in found if isinstance(block, Table)]


def words(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


def test_the_summary_says_what_is_left(full: Report) -> None:
    # By hand for 2 images of 6 x 6: 16 positions, 27 inputs a filter, then 8 or 5 inputs and 4 outputs.
    macs = [2 * 16 * (27 * width + 4 * width) for width in (8, 5)]
    assert full["summary"].data["left"]["macs"] == macs[1] / macs[0]
    assert "1 of 2 layers is narrower, by 3 channels" in words(full["summary"])
    assert f"{macs[1] / macs[0]:.1%} left" in full.html()
    assert "- accuracy: **0.93** (in the frontier; 0.95 before)" in full.to_markdown()


def test_costs_are_those_of_the_profiles(full: Report, cut: Cut) -> None:
    before, after = cp.profile(cut.model, cut.x), cp.profile(cut.small, cut.x)
    first = tables(full["costs"])[0]
    rows = {row[0]: row[1:] for row in first.rows}
    assert rows["MACs"][:2] == (f"{before.macs:,}", f"{after.macs:,}")
    assert rows["parameters"][:2] == ("268", "169")  # 8 * 27 + 2 * 8 + 8 * 4 + 4, and with 5 for 8
    assert rows["time, Eager()"] == ("2.000 ms", "1.000 ms", "50.0%")
    assert full["costs"].data["after"] == after.to_dict()["totals"]
    layers = {row[0]: row for row in tables(full["costs"])[1].rows}
    assert layers["conv1"][2:4] == (f"{2 * 16 * 27 * 8:,}", f"{2 * 16 * 27 * 5:,}")


def test_several_latencies_have_a_row_each(cut: Cut) -> None:
    report = cp.report(cut.model, cut.small, cut.x, latency=[TIMES, TIMES])
    assert [row[0] for row in tables(report["costs"])[0].rows].count("time, Eager()") == 2


def test_a_slower_model_is_called_so(cut: Cut) -> None:
    slow = replace(TIMES, timings=(TIMES.timings[0], Timing(4.0, 4.0, 4.0, 0.5, 0.5, 0.5)))
    page = cp.report(cut.model, cut.small, cut.x, latency=slow)
    assert "0.50x" in page.html() and "slower, measured" in page.html()
    assert 'class="fill over"' in page.html()


def test_what_was_measured_of_both_comes_first(cut: Cut) -> None:
    quality = {"accuracy": (0.926, 0.914), "recall of melanoma": (0.5, 0.52)}
    report = cp.report(cut.model, cut.small, cut.x, quality=quality, frontier=cut.frontier)
    tiles = next(block for block in report["summary"].blocks if isinstance(block, Tiles)).tiles
    assert [(tile.label, tile.value, tile.detail) for tile in tiles[:2]] == [
        ("accuracy", "0.914", "0.926 before"),
        ("recall of melanoma", "0.52", "0.5 before"),
    ]
    assert not any("frontier" in tile.detail for tile in tiles)
    rows = {row[0]: row[1:] for row in tables(report["costs"])[0].rows}
    assert rows["accuracy"] == ("0.926", "0.914", "-0.012")
    assert rows["recall of melanoma"] == ("0.5", "0.52", "+0.02")
    assert report["costs"].data["quality"]["accuracy"] == {"before": 0.926, "after": 0.914}


def test_small_drops_show_beside_a_large_one(full: Report, cut: Cut) -> None:
    """A hundredth of the largest drop is a tenth of the way down."""
    curve = Curve("conv1.weight", 8, (1, 4), (0.9, -0.5), (10, 5))
    wide = replace(cut.sensitivity, quality=0.915, curves=(curve,))
    page = cp.report(cut.model, cut.small, cut.x, sensitivity=wide).html()
    (points,) = re.findall(r'<polyline class="curve" points="([^"]*)"', page)
    ys = [float(point.split(",")[1]) for point in points.split()]
    assert ys == pytest.approx([1.0, 1.0 + 8 * (0.015 / 1.415) ** 0.5, 9.0], abs=0.01)


def test_thresholds_are_the_largest_removed_and_the_least_kept(full: Report) -> None:
    (group,) = full["scores"].data["groups"]
    assert group == {
        "group": "conv1.weight",
        "units": 8,
        "removed": 3,
        "largest_removed": 0.0,
        "least_kept": 1.0,
    }


def test_scores_where_nothing_can_be_removed(cut: Cut) -> None:
    layer, x = nn.Linear(4, 2), torch.rand(1, 4)
    graph = cp.capture(layer, x)
    small = cp.apply(layer, graph.plan([False] * graph.n_units))
    section = cp.report(layer, small, x, scores=cp.score(graph, cp.scoring.Norm()))["scores"]
    assert words(section) == "No channel can be removed, so there is nothing to score."


def test_the_certificate_names_the_plan_by_the_digest_of_its_file(
    full: Report, cut: Cut, tmp_path: Path
) -> None:
    cut.plan.save(tmp_path / "plan.json")
    digest = json.loads((tmp_path / "plan.json").read_text())["digest"]
    data = full["certificate"].data
    assert data["plan_sha256"] == digest and digest in full.to_markdown()
    proof = cp.verify(cut.model, cut.small, cut.plan, cut.x)
    assert (data["error"], data["layers"], data["outputs"]) == (proof.error, proof.layers, proof.outputs)
    assert data["versions"]["torch"] == torch.__version__


def test_statistics_over_fewer_channels_are_told() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    x = torch.rand(2, 4)
    small = cp.prune(net, x, budget=cp.budget.Uniform(0.5))
    report = cp.report(net, small, x)
    plan = cp.plan_of(small)
    assert plan is not None
    assert report["certificate"].data["statistics"] == cp.verify(net, small, plan, x).statistics > 0
    assert "Norms take their statistics over fewer channels behind 0.weight." in report.to_markdown()


def test_the_plan_names_removed_channels_and_why_others_stay(full: Report) -> None:
    data = full["plan"].data
    assert data["groups"] == [{"name": "conv1.weight", "units": 8, "removed": [list(REMOVED)]}]
    assert data["pinned"] == {"it is an output of the model": ["conv2 (4 of 4)"]}
    assert "<dt>conv1.weight</dt><dd>1, 4-5</dd>" in full.html()
    assert "conv2 (4 of 4)" in full.to_markdown()


def test_numbers_that_follow_are_told(cut: Cut) -> None:
    sizes = cp.report(cut.model, cut.small, cut.x)["plan"].data["sizes"]
    assert "conv1.out_channels: 8 -> 5" in sizes


@pytest.mark.parametrize(
    ("numbers", "expected"), [([], ""), ([3], "3"), ([0, 1], "0-1"), ([0, 2, 3, 4, 9], "0, 2-4, 9")]
)
def test_ranges(numbers: list[int], expected: str) -> None:
    assert ranges(numbers) == expected


def test_sensitivity_tells_what_the_plan_takes_and_what_that_costs_alone(full: Report) -> None:
    (row,) = tables(full["sensitivity"])[0].rows
    # Three of eight go: half-way between 0.05 after two and 0.15 after four.
    assert row == ("conv1.weight", "8", "3", "0.1000", "6", "0.4500")
    assert "other weights" not in full.html()


def test_a_sensitivity_of_other_weights_is_marked(cut: Cut) -> None:
    other = replace(cut.sensitivity, weights="0" * 64)
    assert (
        "**Measured on other weights"
        in cp.report(cut.model, cut.small, cut.x, sensitivity=other).to_markdown()
    )


def test_the_frontier_numbers_what_is_not_beaten_and_finds_this_cut(full: Report) -> None:
    rows = tables(full["frontier"])[0].rows
    assert [row[:2] for row in rows] == [("half", "1"), ("worse", "beaten"), ("original", "2")]
    assert "The cut of this report is half." in words(full["frontier"])
    assert full.html().count("<circle") == 2 * 3  # two costs, three points


def test_filters_are_those_of_both_reports(full: Report, cut: Cut) -> None:
    before, after = cp.filters.report(cut.model, cut.x), cp.filters.report(cut.small, cut.x)
    data = full["filters"].data
    assert data["before"] == before.to_dict() and data["after"] == after.to_dict()
    drifts = cp.filters.compare(*([layer.bank for layer in each.layers] for each in (before, after)))
    assert data["drift"] == {row.name: row.drift and row.drift.value for row in drifts}


def test_a_layer_that_runs_twice_has_no_drift_but_a_report() -> None:
    shared = nn.Conv2d(3, 3, 3, padding=1)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), shared, nn.ReLU(), shared)
    x = torch.rand(1, 2, 6, 6)
    graph = cp.capture(net, x)
    small = cp.apply(net, graph.plan([False] * graph.n_units))
    filters = (cp.filters.report(net, x), cp.filters.report(small, x))
    assert len(cp.report(net, small, x, filters=filters)["filters"].data["after"]["layers"]) >= 2
