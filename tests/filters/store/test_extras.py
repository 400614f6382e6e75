"""Each optional library that a store needs, by the command that installs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.errors import MissingExtraError
from compressor.filters import read_onnx
from compressor.filters.store import Store, StoreWriter, import_filter_db

NEEDS: dict[str, Callable[[Path, Path], object]] = {
    "pyarrow": lambda store, other: StoreWriter(other),
    "filelock": lambda store, other: StoreWriter(other),
    "pyarrow.parquet": lambda store, other: Store.open(store),
    "duckdb": lambda store, other: Store.open(store).query("select 1"),
    "h5py": lambda store, other: import_filter_db(other / "dataset.h5", other / "store"),
    "onnx": lambda store, other: read_onnx(other / "net.onnx"),
}


@pytest.mark.parametrize("module", NEEDS)
def test_a_missing_library_is_named_with_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    named = module.partition(".")[0]
    extra = "onnx" if named == "onnx" else "filters"
    with pytest.raises(MissingExtraError, match=rf"needs {named}.*pip install 'compressor\[{extra}\]'"):
        NEEDS[module](folder, tmp_path / "other")
