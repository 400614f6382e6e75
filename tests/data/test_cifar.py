from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data import IMAGENET_MEAN, IMAGENET_STD, load_cifar10_npz, normalize
from compressor.errors import FileError, InputError


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "x_train": rng.integers(0, 256, (5, 32, 32, 3)).astype(np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1], np.uint8),
        "x_test": rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8),
        "y_test": np.array([2, 0], np.uint8),
        "classes": np.array(["cat", "dog", "ship"]),
    }


def saved(folder: Path, **changes: Any) -> Path:
    content = {**arrays(), **changes}
    file = folder / "data.npz"
    np.savez_compressed(file, **{name: a for name, a in content.items() if a is not None})
    return file


def test_images_come_channels_first_and_in_order(tmp_path: Path) -> None:
    split = load_cifar10_npz(saved(tmp_path))
    source = arrays()["x_train"]
    assert split.train.images.shape == (5, 3, 32, 32)
    assert split.train.images.dtype == torch.uint8
    for n, c, row, column in ((0, 0, 0, 0), (4, 2, 31, 0), (2, 1, 3, 17)):
        assert int(split.train.images[n, c, row, column]) == source[n, row, column, c]
    assert split.train.labels.tolist() == [0, 1, 2, 0, 1]
    assert split.test.labels.dtype == torch.int64
    assert (len(split.train), len(split.test)) == (5, 2)
    assert split.classes == ("cat", "dog", "ship")


def test_normalisation_is_the_formula_for_every_pixel() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    out = normalize(images)
    assert out.dtype == torch.float32
    for n, c, i, j in np.ndindex(2, 3, 4, 4):
        expected = (int(images[n, c, i, j]) / 255 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]
        assert float(out[n, c, i, j]) == pytest.approx(expected, abs=1e-6)


def test_normalisation_takes_other_constants() -> None:
    gray = torch.full((1, 1, 2, 2), 51, dtype=torch.uint8)
    assert normalize(gray, mean=(0.1,), std=(0.5,)).flatten().tolist() == pytest.approx([0.2] * 4)


def test_normalising_twice_is_refused() -> None:
    once = normalize(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"got torch.float32 \[1, 3, 2, 2\]; is it normalised"):
        normalize(once)


def test_constants_for_another_number_of_channels_are_refused() -> None:
    with pytest.raises(InputError, match="one number per channel, 1 in all, got 3 and 3"):
        normalize(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.npz: no such file"):
        load_cifar10_npz(tmp_path / "none.npz")


@pytest.mark.parametrize("part", [0, 30, 5000])
def test_a_truncated_file_is_named_as_such(part: int, tmp_path: Path) -> None:
    file = saved(tmp_path)
    file.write_bytes(file.read_bytes()[:part])
    with pytest.raises(FileError, match=r"cannot be read as an \.npz archive .* truncated"):
        load_cifar10_npz(file)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(FileError, match=r"one\.npy: cannot be read as an \.npz archive"):
        load_cifar10_npz(tmp_path / "one.npy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None, "classes": None}, r"lacks y_test, classes; it holds x_train, y_train"),
        ({"x_train": np.zeros((5, 32, 32, 3))}, r"x_train must be uint8 .* got float64 \[5, 32, "),
        ({"x_test": np.zeros((2, 3, 32, 32), np.uint8)}, r"x_test must be .*\[2, 3, 32, 32\]"),
        ({"y_test": np.zeros(3, np.uint8)}, r"y_test must hold 2 integers, .* got uint8 \[3\]"),
        ({"y_train": np.zeros(5)}, r"y_train must hold 5 integers, .* got float64"),
        ({"y_test": np.array([1, 3])}, r"y_test must lie in 0\.\.2 \(3 classes\), got 1\.\.3"),
        (
            {"classes": np.array([{}], dtype=object)},
            r"cannot be read as an \.npz archive of plain arrays",
        ),
    ],
)
def test_a_file_laid_out_otherwise_says_how(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=message):
        load_cifar10_npz(saved(tmp_path, **changes))


@pytest.mark.shared
def test_the_lossless_images_are_all_there(shared: Path) -> None:
    split = load_cifar10_npz(shared / "data" / "cifar10" / "cifar10_lossless_4k1k.npz")
    assert split.train.labels.bincount().tolist() == [
        *(396, 366, 420, 384, 422),
        *(393, 414, 385, 407, 413),
    ]
    assert split.test.labels.bincount().tolist() == [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]
    assert split.classes[0] == "airplane" and split.classes[9] == "truck"
