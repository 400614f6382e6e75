"""Figures of searches: every point and cell is drawn where its numbers say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from compressor.core.plan import Plan, Signature
from compressor.errors import InputError, MissingExtraError
from compressor.reporting import save_frontier_figure, save_sensitivity_figure
from compressor.search import Curve, Frontier, Point, Sensitivity

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

PLAN = Plan((), (), Signature("Net", ()))
POINTS = (
    Point("original", 0.95, {"macs": 100, "ms": 3.0}),
    Point("a cut with a rather long name of its own", 0.9, {"macs": 50, "ms": 2.5}, PLAN),
    Point("b", 0.8, {"macs": 60, "ms": 2.0}, PLAN),
    Point("c", 0.7, {"macs": 20, "ms": 1.0}, PLAN),
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    found: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: (found.append(self), save(self, *args, **kw))
    )
    return found


def test_a_frontier_shows_beaten_points_the_front_and_the_unpruned_model(
    drawn: list[Figure], tmp_path: Path
) -> None:
    save_frontier_figure(tmp_path / "f.png", Frontier(POINTS, "accuracy"))
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
    (axes,) = drawn[0].axes
    beaten, best, whole = (collection.get_offsets().tolist() for collection in axes.collections)
    assert beaten == [[60, 0.8]]
    assert best == [[20, 0.7], [50, 0.9], [100, 0.95]]
    assert whole == [[100, 0.95]]
    assert [text.get_text() for text in axes.texts] == ["c", "a cut with a rather long na…", "original"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("macs", "accuracy")


def test_another_cost_may_lie_along_the_figure(drawn: list[Figure], tmp_path: Path) -> None:
    save_frontier_figure(tmp_path / "f.svg", Frontier(POINTS, "accuracy"), cost="ms")
    assert drawn[0].axes[0].collections[1].get_offsets().tolist()[0] == [1.0, 0.7]
    with pytest.raises(InputError, match=r"Point\(original: 0.95\) has no cost 'joules'; it has macs, ms"):
        save_frontier_figure(tmp_path / "f.png", Frontier(POINTS, "accuracy"), cost="joules")


def test_a_sensitivity_is_a_map_with_gaps_where_nothing_was_measured(
    drawn: list[Figure], tmp_path: Path
) -> None:
    curves = (Curve("conv1.weight", 8, (4,), (0.7,), (60,)), Curve("conv2.weight", 3, (1,), (0.95,), (80,)))
    found = Sensitivity("Net", "0f", "Norm()", "accuracy", 0, 0.9, 100, (0.1, 0.5), curves)
    save_sensitivity_figure(tmp_path / "s.png", found)
    axes = drawn[0].axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(np.ma.filled(shown, np.nan), [[np.nan, 0.2], [np.nan, -0.05]], atol=1e-12)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv1.weight (8)", "conv2.weight (3)"]
    with pytest.raises(InputError, match="no group was measured"):
        save_sensitivity_figure(tmp_path / "s.png", Sensitivity(**{**vars(found), "curves": ()}))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"compressor\[plots\]"):
        save_frontier_figure(tmp_path / "f.png", Frontier(POINTS, "accuracy"))
