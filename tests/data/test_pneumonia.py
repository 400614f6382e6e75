from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.data import load_pneumoniamnist_npz
from compressor.errors import FileError, InputError


def saved(folder: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(2)
    content: dict[str, Any] = {}
    for part, labels in (("train", [1, 0, 1, 0, 0, 1]), ("val", [0, 1]), ("test", [1, 1, 0])):
        content[f"{part}_images"] = rng.integers(0, 256, (len(labels), 28, 28)).astype(np.uint8)
        content[f"{part}_labels"] = np.array(labels, np.uint8)[:, None]
    file = folder / "pneumonia.npz"
    np.savez_compressed(file, **{name: a for name, a in {**content, **changes}.items() if a is not None})
    return file


def test_images_get_their_channel_and_labels_lose_their_column(tmp_path: Path) -> None:
    file = saved(tmp_path)
    parts = load_pneumoniamnist_npz(file)
    assert parts.train.images.shape == (6, 1, 28, 28)
    assert np.array_equal(parts.test.images[:, 0].numpy(), np.load(file)["test_images"])
    assert parts.test.labels.tolist() == [1, 1, 0]
    assert parts.classes == ("normal", "pneumonia")


def test_the_first_normals_stay_in_order_among_all_others(tmp_path: Path) -> None:
    file = saved(tmp_path)
    parts = load_pneumoniamnist_npz(file, normals=2)
    kept = [0, 1, 2, 3, 5]  # of the labels 1 0 1 0 0 1 the third normal one goes
    assert parts.train.labels.tolist() == [1, 0, 1, 0, 1]
    assert np.array_equal(parts.train.images[:, 0].numpy(), np.load(file)["train_images"][kept])
    assert (len(parts.val), len(parts.test)) == (2, 3)


@pytest.mark.parametrize("count", [0, 4])
def test_more_normals_than_there_are_are_refused(count: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"between 1 and the 3 normal images .* got {count}"):
        load_pneumoniamnist_npz(saved(tmp_path), normals=count)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, r"lacks val_labels; it holds"),
        ({"test_images": np.zeros((3, 28, 28))}, r"test_images must be uint8 .* got float64 \[3, 28, 28\]"),
        ({"test_labels": np.array([[0, 1]] * 3)}, r"test_labels must hold 3 integers, .* got int64 \[3, 2\]"),
        ({"val_labels": np.array([[0], [2]])}, r"val_labels must lie in 0\.\.1"),
    ],
)
def test_a_file_laid_out_otherwise_says_how(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=message):
        load_pneumoniamnist_npz(saved(tmp_path, **changes))


@pytest.mark.shared
def test_one_normal_for_nine_with_pneumonia(shared: Path) -> None:
    file = shared / "data" / "pneumoniamnist" / "pneumoniamnist.npz"
    assert load_pneumoniamnist_npz(file).train.labels.bincount().tolist() == [1214, 3494]
    parts = load_pneumoniamnist_npz(file, normals=388)
    assert parts.train.labels.bincount().tolist() == [388, 3494]
    assert parts.val.labels.bincount().tolist() == [135, 389]
    assert parts.test.labels.bincount().tolist() == [234, 390]
