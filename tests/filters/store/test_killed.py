"""A writer that is killed, at whatever step, loses no model, keeps no half of one, and doubles none."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from compressor.filters.store import Store
from tests.filters.store.killing import STEPS, extract_all, killed_at
from tests.filters.store.zoo import banks_of, metadata_of

NAMES = ["alpha", "beta", "gamma"]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL and fork")


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.BaseContext:
    """Processes from a server that has the library imported, so that each starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.filters.store.killing"])
    return context


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_writer_is_continued(
    tmp_path: Path, step: str, processes: multiprocessing.context.BaseContext
) -> None:
    folder = tmp_path / "store"
    process = processes.Process(target=killed_at, args=(step, folder, NAMES, "beta"))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    # The journal's line is what counts: with it the model is there whole, without it not at all.
    written = ("alpha", "beta") if step == "before tidying" else ("alpha",)
    assert Store.open(folder).models == written
    extract_all(folder, NAMES)
    store = Store.open(folder)
    assert store.models == tuple(NAMES)
    expected = [bank for name in NAMES for bank in banks_of(name)]
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(store.banks(), expected, strict=True))
    assert all(layer.metadata == metadata_of(layer.model) for layer in store.layers)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    parts = {f"{kind}/00000{i}.parquet" for kind in ("kernels", "layers") for i in range(3)}
    assert files - {".lock"} == {"store.json", "models.jsonl"} | parts
