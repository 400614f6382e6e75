"""Files and folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import ExportError
from compressor.export.writing import drafted, replaced


@pytest.mark.parametrize("name", ["out", "earlier", "whole"])
def test_a_folder_is_replaced_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "old").write_text("old", encoding="utf-8")
    with replaced(folder) as new:
        (new / "new").write_text("new", encoding="utf-8")
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_what_is_interrupted_leaves_all_as_it_was(tmp_path: Path, error: BaseException) -> None:
    folder, file = tmp_path / "out", tmp_path / "net.onnx"
    folder.mkdir()
    file.write_text("old", encoding="utf-8")
    with pytest.raises(type(error)), replaced(folder) as new, drafted(file) as draft:
        draft.write_text("half", encoding="utf-8")
        (new / "half").write_text("half", encoding="utf-8")
        raise error
    assert file.read_text(encoding="utf-8") == "old" and not any(folder.iterdir())
    assert sorted(tmp_path.iterdir()) == [file, folder]


def test_what_the_system_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ExportError, match=r"cannot write .*net\.onnx: "), drafted(tmp_path / "file/net.onnx"):
        pass
    with (
        pytest.raises(ExportError, match="cannot write the page: "),
        replaced(tmp_path / "file/o", what="the page"),
    ):
        pass
