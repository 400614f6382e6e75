"""Every file of a store that is not as written is found, and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compressor.errors import FileError
from compressor.filters.store import verify_store


def test_a_whole_store_says_what_was_read(folder: Path) -> None:
    found = verify_store(folder, progress=True)
    files = [path for kind in ("kernels", "layers") for path in (folder / kind).iterdir()]
    assert (found.models, found.files, found.kernels) == (3, 6, 3 * 161)
    assert found.read_bytes == sum(path.stat().st_size for path in files)
    assert str(found).startswith("3 models, 483 kernels, 6 files, ")


def test_any_changed_byte_is_found(folder: Path) -> None:
    for name in ("kernels/000001.parquet", "layers/000000.parquet"):
        file = folder / name
        whole = file.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(FileError, match=f"1 files are not.*\n.*{name}: was changed"):
                verify_store(folder)
        file.write_bytes(whole)
    verify_store(folder)


def test_all_faults_are_named_at_once(folder: Path) -> None:
    os.truncate(folder / "kernels" / "000000.parquet", 10)
    (folder / "layers" / "000002.parquet").unlink()
    (folder / "kernels" / "000007.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileError, match="3 files are not as the store was written") as caught:
        verify_store(folder)
    assert "kernels/000007.parquet: no line of models.jsonl speaks of it" in str(caught.value)
    assert "kernels/000000.parquet: has 10 bytes, expected" in str(caught.value)
    assert "layers/000002.parquet: is missing (gamma)" in str(caught.value)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is no store of filters"):
        verify_store(tmp_path)
