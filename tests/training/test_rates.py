"""Schedules in steps: the authors' learning rates, and those that a training makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.errors import InputError
from compressor.training import (
    Recipe,
    Regularizer,
    Stepped,
    fine_tune_,
    mask_sparsity_fine_tuning,
    mask_sparsity_training,
    step_rates,
)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [(mask_sparsity_training(), "lr_100epochs"), (mask_sparsity_fine_tuning(), "lr_finetune40")],
)
def test_epochs_have_the_rates_of_the_authors(recipe: Recipe, name: str, shared: Path) -> None:
    with np.load(shared / "golden" / "masksparsity_schedule_and_published_masks.npz") as arrays:
        expected = arrays[name]
    found = [recipe.lr * recipe.schedule(epoch / recipe.epochs) for epoch in range(recipe.epochs)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(np.reshape(step_rates(recipe, 3), (-1, 3)), expected[:, None].repeat(3, 1))


class Noting(Regularizer):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def before_step(self, optimizer: Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=3, lr=0.01),
        Recipe(epochs=3, lr=0.01, accumulate=2, warmup_epochs=1.5),
        Recipe(epochs=2, lr=0.01, batches_per_epoch=4, schedule=Stepped((0.4, 0.6))),
    ],
)
def test_rates_are_those_of_the_training(recipe: Recipe) -> None:
    batches = [(torch.rand(2, 3), torch.tensor([0, 1])) for _ in range(5)]
    noting = Noting()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target)

    fine_tune_(nn.Linear(3, 2), batches, loss, recipe, regularizer=noting, progress=False)
    assert step_rates(recipe, 5) == noting.rates


def test_senseless_steps_are_refused() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        Stepped((30, 60, 90))
    with pytest.raises(InputError, match="at least 1"):
        step_rates(Recipe(), 0)
