"""What the recipes read, without torchvision."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data import IMAGENET_MEAN, IMAGENET_STD, normalize
from tests.conftest import ROOT


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """examples/recipes/images.py, which is a script's neighbour and no part of a package."""
    monkeypatch.syspath_prepend(ROOT / "examples/recipes")
    for name in ("images", "session"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("images")


@pytest.fixture
def run(images: ModuleType, tmp_path: Path) -> Any:
    session = sys.modules["session"]
    return session.Session(torch.device("cpu"), 0, 1, None, tmp_path)


def test_cifar_images_are_normalised_shifted_and_flipped(images: ModuleType, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    file = tmp_path / "cifar.npz"
    np.savez(file, x_train=x, y_train=np.arange(6), x_test=x[:2], y_test=np.arange(2), classes=list("abcdef"))
    found = images.cifar10(file)
    ready = normalize(torch.from_numpy(x).permute(0, 3, 1, 2), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    image, label = found.plain[3]
    torch.testing.assert_close(image, ready[3])
    assert label == 3 and found.labels == (0, 1, 2, 3, 4, 5) and len(found.validation) == 2
    padded = torch.nn.functional.pad(ready[3], (4,) * 4)
    crops = [padded[:, i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
    for _ in range(5):
        augmented, _ = found.train[3]
        assert any(
            torch.allclose(augmented, crop) or torch.allclose(augmented, crop.flip(2)) for crop in crops
        )


def test_every_class_is_there_and_rare_ones_are_rare(images: ModuleType) -> None:
    found = images.synthetic(n=80, pixels=8, counts=(6, 3, 1))
    assert [found.labels.count(label) for label in range(3)] == [48, 24, 8]


def test_batches_are_whole_and_the_balanced_ones_balanced(images: ModuleType, run: Any) -> None:
    found = images.synthetic(n=800, pixels=4, counts=(6, 3, 1))
    for balanced, share in ((False, 0.1), (True, 1 / 3)):
        loader = found.training(run, batch=16, workers=0, seed=0, balanced=balanced)
        labels = torch.cat([labels for _, labels in loader])
        assert len(labels) == 800
        assert float((labels == 2).double().mean()) == pytest.approx(share, abs=0.06)
    assert sum(len(labels) for _, labels in found.validating(run, batch=16, workers=0)) == 400
    assert [len(y) for _, y in found.scoring(run, batch=16, workers=0, samples=50)] == [16, 16, 16]


def test_a_batch_that_does_not_divide(images: ModuleType, tmp_path: Path) -> None:
    two = sys.modules["session"].Session(torch.device("cpu"), 0, 2, None, tmp_path)
    with pytest.raises(SystemExit, match="does not divide among 2"):
        images.synthetic(n=8, pixels=4, counts=(1, 1)).training(two, batch=3, workers=0, seed=0)
