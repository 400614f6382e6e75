from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data import load_ham10000_npz
from compressor.errors import FileError


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "x": rng.integers(0, 256, (6, 28, 28, 3)).astype(np.uint8),
        "y": np.array([0, 1, 1, 0, 1, 1], np.uint8),
        "split": np.array([2, 0, 0, 1, 0, 2], np.uint8),
        "lesion": np.array([7, 3, 3, 9, 4, 7], np.int32),
        "classes": np.array(["mel", "nv"]),
    }


def saved(folder: Path, **changes: Any) -> Path:
    file = folder / "ham.npz"
    np.savez_compressed(file, **{name: a for name, a in {**arrays(), **changes}.items() if a is not None})
    return file


def test_every_part_has_its_images_labels_and_lesions(tmp_path: Path) -> None:
    parts = load_ham10000_npz(saved(tmp_path))
    source = arrays()["x"]
    for part, places in ((parts.train, [1, 2, 4]), (parts.val, [3]), (parts.test, [0, 5])):
        assert torch.equal(part.images, torch.from_numpy(source[places]).permute(0, 3, 1, 2))
        assert part.labels.tolist() == [int(arrays()["y"][i]) for i in places]
        assert part.subjects is not None
        assert part.subjects.tolist() == [int(arrays()["lesion"][i]) for i in places]
    assert parts.classes == ("mel", "nv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lesion": None}, r"lacks lesion; it holds x, y, split, classes"),
        ({"x": np.zeros((6, 3, 28, 28), np.uint8)}, r"x must be uint8 \[N, 28, 28, 3\], got uint8 \[6, 3,"),
        ({"y": np.array([0, 1, 2, 0, 0, 0])}, r"y must lie in 0\.\.1 \(2 classes\), got 0\.\.2"),
        ({"split": np.array([0, 0, 0, 1, 2, 3])}, r"split must be 0 \(train\), .* got 0\.\.3"),
        ({"lesion": np.array([7, 3, 3, 9, 4, 4])}, r"images of lesion 4 are in several parts"),
    ],
)
def test_a_file_laid_out_otherwise_says_how(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=message):
        load_ham10000_npz(saved(tmp_path, **changes))


@pytest.mark.shared
def test_the_images_are_all_there(shared: Path) -> None:
    parts = load_ham10000_npz(shared / "data" / "ham10000_28" / "ham10000_28.npz")
    assert parts.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert parts.train.labels.bincount().tolist() == [249, 367, 760, 85, 783, 4602, 89]
    assert parts.val.labels.bincount().tolist() == [20, 61, 127, 2, 109, 727, 7]
    assert parts.test.labels.bincount().tolist() == [58, 86, 212, 28, 221, 1376, 46]
