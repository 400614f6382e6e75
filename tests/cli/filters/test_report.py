"""`filters report` measures models, ONNX files and stores alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import compressor as cp
from tests.cli.conftest import IMAGE, Run

TINY = "tiny_net:Tiny"


def test_a_model_is_reported_as_the_library_reports_it(run: Run, tiny: nn.Module) -> None:
    outcome = run("filters", "report", TINY)
    assert outcome.code == 0, outcome.err
    assert outcome.out.rstrip() == str(cp.filters.report(tiny, model_name=TINY))


def test_inputs_give_depths_and_folding(run: Run) -> None:
    outcome = run("filters", "report", TINY, *IMAGE, "--fold-batch-norm", "--json")
    assert outcome.code == 0, outcome.err
    assert [layer["conv_depth"] for layer in outcome.data["layers"]] == [0, 1]
    assert all(layer["folded"] for layer in outcome.data["layers"])


def test_an_onnx_file_has_the_folded_filters(run: Run, onnx_file: Path) -> None:
    folded = run("filters", "report", TINY, *IMAGE, "--fold-batch-norm", "--json").data["layers"]
    outcome = run("filters", "report", onnx_file, "--json")
    assert outcome.code == 0, outcome.err
    for ours, theirs in zip(folded, outcome.data["layers"], strict=True):
        assert ours["entropy"] == pytest.approx(theirs["entropy"], abs=1e-6)


def test_a_store_is_reported_layer_by_layer(run: Run, store: Path) -> None:
    outcome = run("filters", "report", store, "--json")
    assert outcome.code == 0, outcome.err
    assert len(outcome.data["layers"]) == 6


def test_files_are_written_and_named(run: Run, here: Path) -> None:
    outcome = run("filters", "report", TINY, "--out", "filters.md", "--figures", "figures")
    assert outcome.code == 0, outcome.err
    assert "| conv1 |" in (here / "filters.md").read_text()
    drawn = [line for line in outcome.out.splitlines() if line.endswith((".png", ".md"))]
    assert drawn and all((here / path).stat().st_size for path in drawn)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((TINY, "--fold-batch-norm"), "give its --input"),
        ((TINY, "--kernel-size", "three"), "is no kernel size"),
        ((TINY, "--kernel-size", "0x3"), "is no kernel size"),
        ((TINY, "--kernel-size", "7x7"), "size (7, 7)"),
        (("tiny.onnx", "--fold-batch-norm"), "tiny.onnx is no model"),
        (("tiny.onnx", *IMAGE), "tiny.onnx is no model"),
        (("missing.onnx",), "missing.onnx"),
        (("store", "--kernel-size", "5x5"), "holds kernels of 3x3"),
        ((TINY, "--out", "nowhere/filters.md"), "expected a file in a folder that exists"),
    ],
)
@pytest.mark.usefixtures("store", "onnx_file")
def test_what_cannot_be_reported_is_said(run: Run, args: tuple[str, ...], words: str) -> None:
    outcome = run("filters", "report", *args)
    assert outcome.code in (1, 2)
    assert words in outcome.words


def test_an_empty_folder_is_no_store(run: Run, here: Path) -> None:
    (here / "empty").mkdir()
    outcome = run("filters", "report", "empty")
    assert outcome.code == 1
    assert "empty" in outcome.words
