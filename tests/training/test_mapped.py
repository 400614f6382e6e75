"""Batches through a function are read, resumed and shared out as those inside."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, TensorDataset

from compressor.errors import InputError
from compressor.training import Mapped, Recipe, fine_tune_, processes
from compressor.training.random_state import generators_of


def test_the_function_is_applied_anew_in_every_pass() -> None:
    noisy = Mapped([(torch.zeros(2), torch.zeros(2))], lambda x, y: (x + torch.randn(2), y))
    (first, _), (second, _) = next(iter(noisy)), next(iter(noisy))  # type: ignore[misc]
    assert not torch.equal(first, second)
    assert list(Mapped([1, 2], lambda x: x + 1)) == [2, 3]


def test_generators_and_samplers_inside_are_found() -> None:
    data = TensorDataset(torch.zeros(4, 1))
    own = torch.Generator()
    loader = DataLoader(data, sampler=RandomSampler(data, generator=own))
    nested = Mapped(Mapped(loader, lambda x: x), lambda x: x)
    assert own in generators_of(nested)
    sampler: DistributedSampler[object] = DistributedSampler(data, num_replicas=2, rank=0)
    processes.set_epoch(Mapped(DataLoader(data, sampler=sampler), lambda x: x), 7)
    assert sampler.epoch == 7


def test_a_length_comes_from_inside_or_is_asked_for() -> None:
    class Endless:
        def __iter__(self) -> object:
            while True:
                yield torch.zeros(1, 2), torch.zeros(1, 2)

    batches = Mapped(Endless(), lambda x, y: (x, y))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no length"):
        fine_tune_(nn.Linear(2, 2), batches, mse_loss, Recipe(epochs=1))
    history = fine_tune_(nn.Linear(2, 2), batches, mse_loss, Recipe(epochs=1, batches_per_epoch=2))
    assert len(history.losses) == 1


def test_an_iterator_inside_is_refused_like_one_outside() -> None:
    used_up = Mapped(iter([(torch.zeros(1, 2), torch.zeros(1, 2))]), lambda x, y: (x, y))
    with pytest.raises(InputError, match="list_iterator can be run through only once"):
        fine_tune_(nn.Linear(2, 2), used_up, mse_loss, Recipe(epochs=2))
