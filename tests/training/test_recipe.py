"""Options that make sense, and the schedule of the learning rate."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from compressor.errors import InputError
from compressor.training import Recipe, cosine
from compressor.training.recipe import schedule_factor


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"epochs": True},
        {"lr": 0},
        {"lr": float("nan")},
        {"weight_decay": -1e-4},
        {"warmup_epochs": 10},
        {"warmup_epochs": -1},
        {"accumulate": 0},
        {"clip_norm": 0.0},
        {"ema": 1.0},
        {"ema": 0.0},
        {"patience": 0},
        {"batches_per_epoch": 0},
        {"optimizer": torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1)},
        {"schedule": 0.1},
        {"autocast": torch.float64},
        {"lr": "0.1"},
        {"lr": True},
        {"weight_decay": None},
        {"warmup_epochs": "1"},
        {"clip_norm": "1"},
        {"ema": "0.9"},
        {"seed": 1.5},
        {"freeze_batch_norm": "no"},
        {"decay_vectors": 0},
    ],
    ids=str,
)
def test_options_without_sense_are_refused_by_name(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=name):
        Recipe(**options)


def test_the_rate_rises_in_a_line_and_falls_by_the_schedule() -> None:
    recipe = Recipe(epochs=6, warmup_epochs=2)
    found = [schedule_factor(recipe, done) for done in (0, 1, 2, 3, 4, 5, 6)]
    assert found == pytest.approx([0, 0.5, 1, 0.8535533906, 0.5, 0.1464466094, 0], abs=1e-9)


def test_cosine_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for step in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(cosine(step / 10))
        optimizer.step()
        theirs.step()


def test_a_recipe_shows_what_differs_from_the_default() -> None:
    assert repr(Recipe()) == "Recipe()"
    adam = partial(torch.optim.AdamW, betas=(0.9, 0.98))
    shown = repr(Recipe(lr=0.1, optimizer=adam, autocast=torch.float16))
    assert shown == "Recipe(lr=0.1, optimizer=partial(AdamW, betas=(0.9, 0.98)), autocast=torch.float16)"
