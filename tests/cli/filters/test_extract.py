"""`filters extract` fills a store from files, folders, models and the published file."""

from __future__ import annotations

from pathlib import Path

import pytest

import compressor as cp
from tests.cli.conftest import Run

TINY = "tiny_net:Tiny"


def test_files_and_models_come_into_one_store(run: Run, here: Path, onnx_file: Path) -> None:
    outcome = run(
        "filters", "extract", "zoo", onnx_file, TINY, "--metadata", "task=Style", "--metadata", "year=2024"
    )
    assert outcome.code == 0, outcome.err
    store = cp.filters.Store.open(here / "zoo")
    assert store.models == ("tiny", TINY)
    assert {layer.metadata["task"] for layer in store.layers} == {"Style"}
    assert {layer.metadata["year"] for layer in store.layers} == {2024}
    assert store.count == 2 * (8 * 3 + 6 * 8)


def test_the_same_command_goes_on(run: Run, onnx_file: Path) -> None:
    first = run("filters", "extract", "zoo", onnx_file, "--json")
    second = run("filters", "extract", "zoo", onnx_file.parent, TINY, "--json")
    assert first.data["added"] == ["tiny"]
    assert second.data["kept"] == ["tiny"] and second.data["added"] == [TINY]


def test_what_cannot_be_read_is_named_and_left_out_on_request(run: Run, here: Path, onnx_file: Path) -> None:
    (here / "broken.onnx").write_bytes(onnx_file.read_bytes()[:300])
    refused = run("filters", "extract", "zoo", here)
    assert refused.code == 1 and "broken" in refused.words
    outcome = run("filters", "extract", "zoo", here, "--skip-unreadable", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.data["kept"] == ["tiny"] and len(outcome.data["skipped"]) == 1


def test_other_kernel_sizes_have_stores_of_their_own(run: Run, here: Path) -> None:
    outcome = run("filters", "extract", "ones", TINY, "--kernel-size", "1x1")
    assert outcome.code == 1 and "1" in outcome.words
    assert run("filters", "extract", "threes", TINY).code == 0
    again = run("filters", "extract", "threes", TINY, "--kernel-size", "5x5")
    assert again.code == 1 and "threes" in again.words


@pytest.mark.shared
def test_the_published_file_is_imported(run: Run, here: Path, shared: Path) -> None:
    published = shared / "golden" / "filterdb_sample.h5"
    outcome = run("filters", "extract", "published", published, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.data["kernels"] == 248
    refused = run("filters", "extract", "published", published, TINY)
    assert refused.code == 2 and "alone" in refused.words


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("zoo", "nothing.onnx"), "nothing.onnx"),
        (("zoo", "tiny_net:Nothing"), "no attribute"),
        (("zoo", TINY, TINY), "is there twice"),
        (("zoo", TINY, "--metadata", "task"), "not of the form name=value"),
        (("zoo", TINY, "--metadata", "a=1", "--metadata", "a=2"), "each name once"),
        (("zoo",), "SOURCE"),
    ],
)
def test_what_cannot_be_extracted_is_said(run: Run, args: tuple[str, ...], words: str) -> None:
    outcome = run("filters", "extract", *args)
    assert outcome.code in (1, 2)
    assert words in outcome.words
