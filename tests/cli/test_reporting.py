"""The command `report` writes what `cp.report` says."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.cli.inputs import parse_input
from compressor.search import Frontier, Point
from tests.cli.conftest import IMAGE, Run

NET = "tiny_net:Tiny"


@pytest.fixture
def small(run: Run, here: Path) -> Path:
    run("plan", NET, *IMAGE, "--macs", "0.5", "--out", "half.json")
    assert run("apply", NET, "--plan", "half.json", "--out", "small").code == 0
    return here / "small"


def test_it_writes_the_page_of_the_library(
    run: Run, here: Path, small: Path, tiny: nn.Module, module: ModuleType
) -> None:
    outcome = run("report", NET, "--saved", small, *IMAGE, "--scores")
    assert outcome.code == 0
    assert "MACs: **" in outcome.out and outcome.out.endswith("wrote report.html\n")
    x = parse_input("2x3x8x8").tensor(torch.Generator().manual_seed(0))
    scores = cp.score(cp.capture(tiny, x), cp.scoring.Norm(power=2))
    report = cp.report(tiny, cp.load(small, lambda: copy.deepcopy(tiny)), x, scores=scores)
    assert (here / "report.html").read_text(encoding="utf-8") == report.html()


def test_markdown_goes_to_stdout_and_no_file_is_written(run: Run, here: Path, small: Path) -> None:
    outcome = run("report", NET, "--saved", small, *IMAGE, "--markdown", "--title", "A title")
    assert outcome.out.startswith("# A title\n\n## Summary\n")
    assert not (here / "report.html").exists()


def test_out_says_what_is_written(run: Run, here: Path, small: Path) -> None:
    outcome = run("report", NET, "--saved", small, *IMAGE, "--markdown", "--out", "sub/r.md")
    assert (here / "sub" / "r.md").read_text(encoding="utf-8").strip() in outcome.out


def test_what_is_measured_is_in_the_json(run: Run, here: Path, small: Path) -> None:
    Frontier((Point("a", 0.5, {"macs": 3}),), "accuracy").save(here / "f.json")
    options = ["--latency", "--filters", "--frontier", "f.json", "--json"]
    data = run("report", NET, "--saved", small, *IMAGE, *options).data
    assert data["costs"]["latency"][0]["rounds"] > 0
    assert data["filters"]["before"]["layers"][0]["name"] == "conv1"
    assert data["frontier"]["points"][0]["name"] == "a"
    assert data["files"] == ["report.html"]


def test_a_plan_alone_is_reported_on(run: Run, small: Path) -> None:
    data = run("report", NET, "--plan", "half.json", *IMAGE, "--json").data
    assert data["summary"]["left"]["macs"] <= 0.5


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "say what to report on: --saved DIR, --plan FILE, or both"),
        (["--saved", "small", "--out", "report.pdf"], 2, "a report is written as .html or .md"),
        (["--saved", "elsewhere"], 1, "elsewhere"),
        (["--saved", "small", "--frontier", "none.json"], 1, "none.json"),
        (["--saved", "small", "--scores", "--scorer", "nrom"], 2, "did you mean"),
        (["--saved", "small", "--scorer", "lamp"], 2, "scores are shown with --scores only"),
        (
            ["--saved", "small", "--out", "tiny_net.py/report.html"],
            1,
            "expected a file in a folder that exists",
        ),
    ],
)
def test_what_cannot_be_is_said(run: Run, small: Path, options: list[str], code: int, words: str) -> None:
    outcome = run("report", NET, *IMAGE, *options)
    assert outcome.code == code and words in outcome.words


def test_the_quality_of_both_models_is_asked(run: Run, here: Path, small: Path) -> None:
    source = "def channels(model):\n    return model.conv1.out_channels\n"
    (here / "tiny_quality.py").write_text(source, encoding="utf-8")
    outcome = run("report", NET, *IMAGE, "--saved", "small", "-e", "tiny_quality:channels", "--json")
    quality = outcome.data["costs"]["quality"]["channels"]
    assert quality["before"] == 8 and 1 <= quality["after"] < 8
