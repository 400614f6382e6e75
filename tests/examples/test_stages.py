"""What the stages of recipes read."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from compressor.training import Recipe, fine_tune_
from tests.conftest import ROOT


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """examples/recipes/stages.py, a script's neighbour."""
    monkeypatch.syspath_prepend(ROOT / "examples/recipes")
    for name in ("stages", "session"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("stages")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_weights_come_from_the_file_of_a_training(
    stages: ModuleType, tmp_path: Path, ema: float | None
) -> None:
    trained, file = network(), tmp_path / "original.pt"
    batches = [(torch.rand(6, 3), torch.tensor([0, 1, 0, 1, 0, 1]))]
    fine_tune_(trained, batches, cross_entropy, Recipe(epochs=3, lr=0.1, ema=ema), checkpoint=file)
    assert_loaded(stages, trained, file)


@pytest.mark.parametrize("under", [None, "state_dict", "model"])
def test_weights_come_from_a_state_dict(stages: ModuleType, tmp_path: Path, under: str | None) -> None:
    trained, file = network(), tmp_path / "weights.pt"
    weights = {f"module.{name}": tensor for name, tensor in trained.state_dict().items()}
    torch.save(weights if under is None else {under: weights, "epoch": 3}, file)
    assert_loaded(stages, trained, file)


def assert_loaded(stages: ModuleType, trained: nn.Module, file: Path) -> None:
    model = network()
    stages.load_weights(model, file)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
