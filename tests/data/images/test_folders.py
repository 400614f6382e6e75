from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from compressor.data.images import image_files, read_folder, write_image
from compressor.errors import FileError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of several sizes, the second file among them damaged, and other files."""
    for number, name in enumerate(("c.png", "a.PNG", "d.bmp")):
        write_image(torch.full((3, 4, 5 + number), number, dtype=torch.uint8), tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "c.png").read_bytes()[:40])
    (tmp_path / "README.md").write_text("what this is")
    (tmp_path / ".hidden.png").write_text("of a file manager")
    (tmp_path / "deeper").mkdir()
    write_image(torch.zeros(1, 2, 2, dtype=torch.uint8), tmp_path / "deeper" / "e.png")
    return tmp_path


def test_images_are_told_by_suffix_and_sorted(folder: Path) -> None:
    assert [file.name for file in image_files(folder)] == ["a.PNG", "b.png", "c.png", "d.bmp"]
    assert image_files(folder, recursive=True)[-1].name == "e.png"


def test_an_unreadable_file_in_the_middle_is_counted_and_named(folder: Path) -> None:
    (folder / "z.png").write_text("")
    with pytest.raises(FileError, match=r"2 of 5 images cannot be read.*skip_unreadable") as caught:
        read_folder(folder)
    assert "b.png: cannot be read" in str(caught.value) and "z.png: cannot be read" in str(caught.value)


def test_unreadable_files_are_left_out_only_where_asked_and_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = read_folder(folder, skip_unreadable=True)
    assert found.names == ("a.PNG", "c.png", "d.bmp")
    assert [int(image[0, 0, 0]) for image in found.images] == [1, 0, 2]
    assert [fault.name for fault in found.skipped] == ["b.png"] and "b.png" in caplog.text
    assert repr(found) == "ImageSet(3 images, 1 unreadable left out)"


def test_many_unreadable_files_are_named_in_part(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.png").write_text("")
    with pytest.raises(FileError, match=r"9 of 9 images cannot be read; none is left(.|\n)*and 4 more"):
        read_folder(tmp_path, skip_unreadable=True)


def test_folders_without_images_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds no image, but 0 other files"):
        read_folder(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(FileError, match="1 other files and 1 folders, which recursive=True"):
        read_folder(tmp_path)
    with pytest.raises(FileError, match="is a file"):
        read_folder(tmp_path / "a.txt")
    with pytest.raises(FileError, match="no such folder"):
        read_folder(tmp_path / "none")


def test_names_are_relative_to_the_folder(folder: Path) -> None:
    found = read_folder(folder, recursive=True, skip_unreadable=True, keep_grey=True)
    assert found.names[-1] == "deeper/e.png" and found.images[-1].shape == (1, 2, 2)


def test_a_link_to_nothing_is_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / "bb.png").symlink_to(folder / "gone.png")
    assert "bb.png" in [file.name for file in image_files(folder)]
    with pytest.raises(FileError, match=r"2 of 5 images cannot be read"):
        read_folder(folder)
    found = read_folder(folder, skip_unreadable=True)
    assert len(found) == 3 and [one.name for one in found.skipped] == ["b.png", "bb.png"]
