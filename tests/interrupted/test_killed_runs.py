"""Runs of many steps that are killed in the middle: the same call goes on, and ends as it would have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.search import find
from compressor.training import Recipe, fine_tune_
from tests.hostile.kinds import IMAGE, net
from tests.interrupted.killing import killed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked to be killed")


def gradual(folder: Path, tick: Callable[[], None] = lambda: None) -> nn.Module:
    """Pruned in three steps, trained between them, each training with a checkpoint of its own."""
    torch.manual_seed(0)
    batches, number = [(IMAGE, torch.tensor([0, 1]))] * 2, [0]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        tick()
        return F.cross_entropy(output, target)

    def between(model: nn.Module) -> None:
        number[0] += 1
        path = folder / f"step {number[0]}.pt"
        fine_tune_(model, batches, loss, Recipe(epochs=2, lr=0.01), checkpoint=path, progress=False)

    return cp.prune(net(), IMAGE, budget=cp.budget.Macs(0.4), steps=3, between=between)


def test_a_gradual_pruning(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    expected, at = gradual(tmp_path / "whole").state_dict(), 0
    while True:
        at += 2
        folder = tmp_path / str(at)
        folder.mkdir()
        if not killed(lambda tick: gradual(folder, tick), at):  # noqa: B023 - called at once
            break
        again = gradual(folder).state_dict()
        assert again.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in again.items())
    assert at >= 8


def narrow(model: nn.Module) -> float:
    """More, the fewer channels the first convolution has; a little for those of the second."""
    return 10.0 - len(model[0].weight) + 0.1 * len(model[3].weight)


def searched(storage: str, tick: Callable[[], None] = lambda: None) -> Any:
    def evaluate(model: nn.Module) -> float:
        tick()
        return narrow(model)

    options: dict[str, Any] = {"name": "narrow", "storage": storage, "progress": False}
    return find(net(), IMAGE, evaluate=evaluate, budget=cp.budget.Macs(0.6), trials=8, **options)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_search_in_a_database(at: int, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    storage, asked = f"sqlite:///{tmp_path / 'search.db'}", [0, 0]
    assert killed(lambda tick: searched(storage, tick), at)
    alone = searched(f"sqlite:///{tmp_path / 'other.db'}", lambda: asked.__setitem__(0, asked[0] + 1))
    found = searched(storage, lambda: asked.__setitem__(1, asked[1] + 1))
    assert found.start == alone.start and found.quality >= found.start
    assert narrow(found.model) == found.quality and found.proof.error < 1e-9
    assert asked[1] <= asked[0]  # what was measured before the end is not asked again
