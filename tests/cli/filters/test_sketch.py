"""`filters sketch` and `filters merge`: tables that were made apart are the table of all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import compressor as cp
from compressor.filters import Sketches
from tests.cli.conftest import Run


def test_parts_merge_to_the_whole(run: Run, here: Path, store: Path) -> None:
    whole = run("filters", "sketch", store, "-o", "whole.parquet", "--json")
    assert whole.code == 0, whole.err
    assert whole.data["kernels"] == 768 and whole.data["layers"] == 6
    table = Sketches.read(here / "whole.parquet")
    for name in "abc":
        table.chosen(lambda layer, name=name: layer.model == name).write(here / f"{name}.parquet")  # type: ignore[misc]
    merged = run("filters", "merge", "all.parquet", "a.parquet", "b.parquet", "c.parquet", "--json")
    assert merged.code == 0, merged.err
    assert {**merged.data, "files": None} == {**whole.data, "files": None}


def test_a_second_pass_in_the_basis_of_the_first(run: Run, here: Path, store: Path) -> None:
    first = run("filters", "sketch", store, "-o", "first.parquet", "--basis-out", "basis.safetensors")
    assert first.code == 0, first.err
    second = run("filters", "sketch", store, "-o", "second.parquet", "--basis", "basis.safetensors", "--json")
    assert second.code == 0, second.err
    pooled = cp.filters.pooled_basis(bank.kernels for bank in cp.filters.Store.open(store).banks())
    torch.testing.assert_close(Sketches.read(here / "second.parquet").setting.basis.mean_K, pooled.mean_K)


def test_tables_of_several_bases_do_not_merge(run: Run, here: Path, store: Path, sketches: Path) -> None:
    Sketches.read(sketches).basis().save(here / "basis.safetensors")
    assert run("filters", "sketch", store, "-o", "axes.parquet", "--basis", "basis.safetensors").code == 0
    for name, model in (("axes", "a"), ("all", "b")):
        table = Sketches.read(here / f"{name}.parquet")
        table.chosen(lambda layer, model=model: layer.model == model).write(here / f"{model}.parquet")  # type: ignore[misc]
    refused = run("filters", "merge", "both.parquet", "a.parquet", "b.parquet")
    assert refused.code == 1 and "basis" in refused.words
    assert not (here / "both.parquet").exists()


def test_nothing_is_left_beside_the_result(run: Run, here: Path, store: Path) -> None:
    before = {path.name for path in here.iterdir()}
    assert run("filters", "sketch", store, "-o", "whole.parquet").code == 0
    assert {path.name for path in here.iterdir()} - before == {"whole.parquet"}


def test_a_model_is_sketched_without_a_store(run: Run) -> None:
    outcome = run("filters", "sketch", "tiny_net:Tiny", "-o", "tiny.parquet", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.data["kernels"] == 72


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("sketch", "store", "-o", "table.csv"), ".parquet"),
        (("sketch", "store", "-o", "t.parquet", "--basis", "no.safetensors"), "no.safetensors"),
        (("sketch", "store", "-o", "t.parquet", "--kernel-size", "5x5"), "leave --kernel-size out"),
        (("sketch", "store", "-o", "t.parquet", "--workers", "0"), "workers"),
        (("merge", "all.parquet", "no.parquet"), "no.parquet"),
        (("merge", "all.csv", "no.parquet"), ".parquet"),
        (("merge", "all.parquet"), "PART"),
    ],
)
@pytest.mark.usefixtures("store")
def test_what_cannot_be_sketched_is_said(run: Run, args: tuple[str, ...], words: str) -> None:
    outcome = run("filters", *args)
    assert outcome.code in (1, 2)
    assert words in outcome.words
