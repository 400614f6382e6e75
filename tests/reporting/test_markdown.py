"""The whole Markdown of a report, against a file that was read by hand."""

from __future__ import annotations

import re
from pathlib import Path

import compressor as cp
from compressor.reporting import Report

from .conftest import TIMES, Cut

GOLDEN = Path(__file__).with_name("report.md")


def steady(report: Report) -> str:
    """The Markdown without what differs from machine to machine: rounding errors and versions."""
    text = re.sub(r"relative error \d\.\de[+-]\d\d", "relative error ?", report.to_markdown())
    return re.sub(r"versions: .*", "versions: ?", text)


def test_the_markdown_is_that_of_the_file(cut: Cut) -> None:
    report = cp.report(
        cut.model,
        cut.small,
        cut.x,
        latency=TIMES,
        scores=cut.scores,
        sensitivity=cut.sensitivity,
        frontier=cut.frontier,
    )
    assert steady(report) == GOLDEN.read_text(encoding="utf-8")
