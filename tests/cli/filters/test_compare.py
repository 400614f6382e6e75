"""`filters compare` shows drifts between models, files and groups of sketches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import compressor as cp
from tests.cli.conftest import IMAGE, Run

TINY = "tiny_net:Tiny"


@pytest.fixture
def other(here: Path, tiny: nn.Module) -> Path:
    """Other weights of the same network."""
    for parameter in tiny.parameters():
        nn.init.normal_(parameter.detach(), generator=torch.manual_seed(7))
    torch.save(tiny.state_dict(), here / "other.pt")
    return here / "other.pt"


def test_a_pruned_model_against_its_original(run: Run) -> None:
    assert run("prune", TINY, *IMAGE, "--macs", "0.5", "-o", "small").code == 0
    outcome = run("filters", "compare", TINY, "--after-saved", "small")
    assert outcome.code == 0, outcome.err
    assert "networks as a whole" in outcome.out and "conv2" in outcome.out


def test_the_numbers_are_the_librarys(run: Run, other: Path, tiny: nn.Module) -> None:
    outcome = run("filters", "compare", TINY, "--after-weights", other, "--json")
    assert outcome.code == 0, outcome.err
    after = cp.filters.banks(tiny)
    torch.manual_seed(0)
    before = cp.filters.banks(type(tiny)())
    assert outcome.data["whole"][0]["drift"] == cp.filters.drift(before, after).value
    layers = cp.filters.compare(before, after)
    found = {row["layer"]: row["drift"] for row in outcome.data["layers"]}
    assert found == {row.name: row.drift.value for row in layers.compared if row.drift}


def test_a_model_with_norms_folded_is_its_export(run: Run, onnx_file: Path) -> None:
    outcome = run("filters", "compare", TINY, onnx_file, *IMAGE, "--fold-batch-norm", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.data["whole"][0]["drift"] == pytest.approx(0, abs=1e-9)


def test_stores_are_compared_as_a_whole(run: Run, store: Path) -> None:
    outcome = run("filters", "compare", store, TINY, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.data["layers"] is None and outcome.data["whole"][0]["kernels"] == [768, 72]


@pytest.mark.usefixtures("sketches")
def test_groups_within_a_file_of_sketches(run: Run) -> None:
    outcome = run("filters", "compare", "all.parquet", "--by", "task")
    assert outcome.code == 0, outcome.err
    (row,) = [line for line in outcome.out.splitlines() if line.startswith("Style")]
    assert row.split()[:4] == ["Style", "Depth", "512", "256"] and "within noise" in row
    pairs = run("filters", "compare", "all.parquet", "--by", "model", "--json").data["pairs"]
    assert [pair["groups"] for pair in pairs] == [["a", "b"], ["a", "c"], ["b", "c"]]


@pytest.mark.usefixtures("sketches")
def test_two_files_of_sketches(run: Run) -> None:
    outcome = run("filters", "compare", "all.parquet", "all.parquet", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.data["whole"][0]["drift"] == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((TINY,), "there is one side only"),
        ((TINY, TINY, "--by", "task"), "groups are those of a file of sketches"),
        ((TINY, TINY, "--basis", "missing.safetensors"), "missing.safetensors"),
        (("all.parquet",), "--by"),
        (("all.parquet", TINY), "has to be one, too"),
        (("all.parquet", "all.parquet", "--by", "task"), "leave AFTER out"),
        (("all.parquet", "--by", "taks"), "did you mean 'task'?"),
        (("missing.parquet", "--by", "task"), "missing.parquet"),
        (("store", "store", *IMAGE), "is no model"),
        (("tiny.onnx", "tiny.onnx", "--fold-batch-norm"), "is no model"),
    ],
)
@pytest.mark.usefixtures("onnx_file", "store", "sketches")
def test_what_cannot_be_compared_is_said(run: Run, args: tuple[str, ...], words: str) -> None:
    outcome = run("filters", "compare", *args)
    assert outcome.code in (1, 2)
    assert words in outcome.words
