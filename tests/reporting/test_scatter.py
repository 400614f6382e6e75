"""Points on a picture: where they lie, which are joined, and round numbers beside them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.reporting.scatter import Scatter, Spot, ticks


def drawn(scatter: Scatter) -> ElementTree.Element:
    svg = ElementTree.fromstring(scatter.html()).find("svg")
    assert svg is not None
    return svg


def test_better_is_higher_and_dearer_is_further_right() -> None:
    spots = (Spot(10, 0.5, "cheap", "1"), Spot(20, 0.9, "good", "2"), Spot(15, 0.4, "beaten"))
    svg = drawn(Scatter("MACs", "accuracy", spots))
    at = {
        (circle.findtext("title") or "").split(":")[0]: (
            float(circle.get("cx", "").rstrip("%")),
            float(circle.get("cy", "")),
        )
        for circle in svg.iter("circle")
    }
    assert at["cheap"][0] < at["beaten"][0] < at["good"][0]
    assert at["good"][1] < at["cheap"][1] < at["beaten"][1]
    curves = [found for found in svg.iter("line") if found.get("class") == "curve"]
    assert [found.get("x1") for found in curves] == [f"{at['cheap'][0]:.2f}%"]  # the beaten one is not joined


@pytest.mark.parametrize("spots", [(Spot(5, 0.5, "a", "1"),), (Spot(0, 0, "a", "1"), Spot(0, 0, "b", "2"))])
def test_points_without_any_extent_are_drawn_within_the_picture(spots: tuple[Spot, ...]) -> None:
    for circle in drawn(Scatter("x", "y", spots)).iter("circle"):
        assert 0 < float(circle.get("cx", "").rstrip("%")) < 100


def test_a_number_that_would_cover_another_is_left_out() -> None:
    spots = (Spot(0, 0, "a", "1"), Spot(0.1, 0.001, "b", "2"), Spot(10, 1, "c", "3"))
    texts = [
        text.text for text in drawn(Scatter("x", "y", spots)).iter("text") if text.get("class") == "middle"
    ]
    assert texts == ["1", "3"]


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_within(low: float, span: float) -> None:
    high = low + span
    if not high - low > 1e-9 * max(abs(low), 1):
        return  # as good as one number
    found = ticks(low, high)
    assert 1 <= len(found) <= 5
    assert all(low - 1e-9 * abs(low) - 1e-12 <= tick <= high + 1e-9 * abs(high) + 1e-12 for tick in found)
    for before, after in pairwise(found):
        assert f"{after - before:.2e}"[:4] in ("1.00", "2.00", "5.00")
