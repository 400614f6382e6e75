"""A store of three models."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.filters.store import Store, StoreWriter
from tests.filters.store.zoo import banks_of, metadata_of

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with StoreWriter(tmp_path / "store") as writer:
        for name in NAMES:
            writer.add(
                name, banks_of(name), metadata=metadata_of(name), source=f"{name}.onnx", source_sha256="ab"
            )
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Store:
    return Store.open(folder)
