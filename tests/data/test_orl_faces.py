"""The ORL faces: the file's facts, and what a wrong file is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data import load_orl_faces_npz
from compressor.errors import FileError


def test_the_faces_of_the_file(shared: Path) -> None:
    faces = load_orl_faces_npz(shared / "data/orl_faces/orl_faces.npz")
    assert faces.images.shape == (400, 1, 112, 92) and faces.images.dtype == torch.uint8
    assert torch.equal(faces.labels.bincount(), torch.full((40,), 10))
    assert faces.subjects is not None and torch.equal(faces.subjects, faces.labels)
    # Ten photographs of one person are nearer to each other than to those of others.
    small = torch.nn.functional.avg_pool2d(faces.images.float(), 4).flatten(1)
    nearest = torch.cdist(small, small).fill_diagonal_(float("inf")).argmin(1)
    assert float((faces.labels[nearest] == faces.labels).double().mean()) > 0.9


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_wrong_files_are_named(tmp_path: Path) -> None:
    x = np.zeros((2, 112, 92), np.uint8)
    file = tmp_path / "faces.npz"
    with pytest.raises(FileError, match="no such file"):
        load_orl_faces_npz(file)
    for subject in (np.array([0, 1]), np.array([1, 41])):
        with pytest.raises(FileError, match="subject must lie in"):
            load_orl_faces_npz(write(file, x=x, subject=subject))
    with pytest.raises(FileError, match=r"uint8 \[N, 112, 92, 1\], got uint8 \[2, 92, 112\]"):
        load_orl_faces_npz(write(file, x=x.transpose(0, 2, 1), subject=np.array([1, 2])))
    with pytest.raises(FileError, match="lacks subject"):
        load_orl_faces_npz(write(file, x=x))
    with pytest.raises(FileError, match="there must be faces"):
        load_orl_faces_npz(write(file, x=x[:0], subject=np.array([], np.uint8)))
