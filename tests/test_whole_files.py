"""One file at a time, whole or as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import ExportError, FileError
from compressor.whole_files import drafted


def test_the_draft_takes_the_place_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old", encoding="utf-8")
    with drafted(file, what="a") as draft:
        draft.write_text("new", encoding="utf-8")
        (draft.parent / "beside").write_text("scratch", encoding="utf-8")
        assert file.read_text(encoding="utf-8") == "old"
    assert file.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_what_is_interrupted_leaves_the_file_as_it_was(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old", encoding="utf-8")
    with pytest.raises(type(error)), drafted(file, what="a") as draft:
        draft.write_text("half", encoding="utf-8")
        raise error
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_the_system_refuses_is_said_with_the_fix(tmp_path: Path) -> None:
    with (
        pytest.raises(FileError, match=r"^cannot write the plan: .*No such file.*; make the folder$"),
        drafted(tmp_path / "no" / "a.txt", what="the plan", fix="make the folder"),
    ):
        pass
    (tmp_path / "file").write_text("", encoding="utf-8")
    with (
        pytest.raises(ExportError, match=r"^cannot write it: "),
        drafted(tmp_path / "file" / "a.txt", what="it", error=ExportError, make_folder=True),
    ):
        pass


def test_a_file_that_was_never_drafted_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write nothing"), drafted(tmp_path / "a", what="nothing"):
        pass
    assert not any(tmp_path.iterdir())
