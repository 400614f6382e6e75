"""The authors' tree of .mat files: pairs, folds, and files that cannot be read."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import io

from compressor.data.echo import MOTIONS, read_published_tree
from compressor.errors import FileError, InputError

SHAPE = (8, 8, 5)


def write(root: Path, where: str, variable: str, value: float, dtype: type = np.uint8) -> Path:
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, {variable: np.full(SHAPE, value, dtype)})
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two vendors, one view, five motions; two near-field files and one of both kinds each."""
    for v, vendor in enumerate(("GE", "Philips")):
        for m, motion in enumerate(MOTIONS):
            subject = f"{vendor}/A2C/{motion}"
            write(tmp_path, f"{subject}/data_org/1.mat", "data_org", 10 * v + m)
            for number in (1, 2):
                write(tmp_path, f"{subject}/data_NFClt/{number}.mat", "data_artf", 100 + 10 * v + m)
                write(tmp_path, f"{subject}/pos_NFClt/{number}.mat", "pos_sp_nf", 1)
            write(tmp_path, f"{subject}/data_NFRvbClt/1.mat", "data_artf", 200 + 10 * v + m)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "GE/A2C/rca/data_NFClt/._1.mat").write_bytes(b"x")
    return tmp_path


def test_each_cluttered_file_has_the_clean_one_of_its_subject(tree: Path) -> None:
    found = read_published_tree(tree)
    assert len(found) == 2 * 5 * 3 and found.skipped == ()
    assert found.clean.frames.shape == (30, 1, *SHAPE) and found.clean.frames.dtype == torch.uint8
    for index, name in enumerate(found.clean.names):
        vendor, view, subject, kind, _ = name.split("/")
        value = 10 * (vendor == "Philips") + MOTIONS.index(subject)
        assert (found.clean.frames[index] == value).all()
        assert (found.cluttered.frames[index] == value + (100 if kind == "data_NFClt" else 200)).all()
        labels = found.clean.vendors, found.views, found.subjects, found.kinds
        assert tuple(label[index] for label in labels) == (vendor, view, subject, kind)


def test_kinds_of_clutter_are_chosen(tree: Path) -> None:
    assert set(read_published_tree(tree, kinds=["data_NFRvbClt"]).kinds) == {"data_NFRvbClt"}
    with pytest.raises(InputError, match="kinds are of"):
        read_published_tree(tree, kinds=["data_org"])
    with pytest.raises(FileError, match="no pair of sequences; expected vendor/view/subject"):
        read_published_tree(tree, kinds=["data_RvbClt"])


def test_the_folds_are_the_sources(tree: Path) -> None:
    found = read_published_tree(tree)
    folds = list(found.motion_folds())
    assert [(fold.validated_on, fold.tested_on) for fold in folds] == [
        ("rca", "normal"),
        ("ladprox", "rca"),
        ("laddist", "ladprox"),
        ("lcx", "laddist"),
        ("normal", "lcx"),
    ]
    for fold in folds:
        assert sorted(fold.train + fold.validation + fold.test) == list(range(30))
        assert {found.subjects[index] for index in fold.test} == {fold.tested_on}
        assert {found.subjects[index] for index in fold.validation} == {fold.validated_on}
    with pytest.raises(InputError, match="are not the motion patterns"):
        list(found.motion_folds(("rca", "ladprox", "laddist")))


def test_other_numbers_are_scaled_and_clipped(tree: Path) -> None:
    write(tree, "GE/A2C/rca/data_org/1.mat", "data_org", 51, np.float64)
    write(tree, "GE/A2C/rca/data_NFClt/1.mat", "data_artf", 300, np.int16)
    found = read_published_tree(tree)
    assert found.clean.frames.dtype == found.cluttered.frames.dtype == torch.float32
    index = found.clean.names.index("GE/A2C/rca/data_NFClt/1.mat")
    assert found.clean.frames[index].unique().item() == pytest.approx(0.2)
    assert found.cluttered.frames[index].unique().tolist() == [1.0]
    other = found.clean.names.index("Philips/A2C/lcx/data_NFClt/1.mat")
    assert found.clean.frames[other].unique().item() == pytest.approx(13 / 255)


def damage(tree: Path, how: str) -> str:
    """The path that is bad now, and part of what has to be said about it."""
    path = tree / "GE/A2C/lcx/data_NFClt/1.mat"
    if how == "cannot be read as a .mat file":
        path.write_bytes(path.read_bytes()[:150])
    elif how == "7.3":
        path.write_bytes(
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n"
        )
    elif how == "lacks the variable data_artf":
        io.savemat(path, {"other": np.zeros(SHAPE)})
    elif how == "not finite":
        io.savemat(path, {"data_artf": np.full(SHAPE, np.nan)})
    elif how == "largest value is 0.5; multiply it by 255":
        io.savemat(path, {"data_artf": np.full(SHAPE, 0.5)})
    elif how == r"must be numbers \[H, W, T\]":
        io.savemat(path, {"data_artf": np.zeros(SHAPE[:2])})
    else:
        io.savemat(path, {"data_artf": np.zeros((8, 8, 4), np.uint8)})
    return str(path)


@pytest.mark.parametrize(
    "how",
    [
        "cannot be read as a .mat file",
        "7.3",
        "lacks the variable data_artf",
        "not finite",
        "largest value is 0.5; multiply it by 255",
        r"must be numbers \[H, W, T\]",
        r"is \[8, 8, 4\], its clean sequence \[8, 8, 5\]",
    ],
)
def test_a_bad_file_is_named_and_skipped_when_asked(
    tree: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = damage(tree, how)
    with pytest.raises(FileError, match=how) as raised:
        read_published_tree(tree)
    assert path in str(raised.value) and "skip_unreadable=True" in str(raised.value)
    with caplog.at_level(logging.WARNING):
        found = read_published_tree(tree, skip_unreadable=True)
    assert len(found) == 29 and len(found.skipped) == 1 and path in found.skipped[0]
    assert path in caplog.text and "1 files skipped" in repr(found)


def test_a_subject_without_its_clean_file_is_left_out_whole(tree: Path) -> None:
    (tree / "GE/A2C/rca/data_org/1.mat").unlink()
    with pytest.raises(FileError, match=r"expected one \.mat file of the clean sequence, got 0"):
        read_published_tree(tree)
    found = read_published_tree(tree, skip_unreadable=True)
    assert len(found) == 27 and "GE/A2C/rca/data_org" in found.skipped[0]


def test_sizes_have_to_agree_and_folders_to_exist(tree: Path, tmp_path: Path) -> None:
    for where, variable in (("data_org", "data_org"), ("data_NFClt", "data_artf")):
        for file in (tree / "Philips/A2C/lcx" / where).glob("*.mat"):
            io.savemat(file, {variable: np.zeros((8, 8, 6), np.uint8)})
    (tree / "Philips/A2C/lcx/data_NFRvbClt/1.mat").unlink()
    with pytest.raises(FileError, match="sequences differ in size"):
        read_published_tree(tree)
    with pytest.raises(FileError, match="no such folder"):
        read_published_tree(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="no pair of sequences"):
        read_published_tree(tmp_path / "empty")
