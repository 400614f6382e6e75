"""Sparse training in a loop of Accelerate itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator, DistributedType
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import compressor as cp
from compressor.errors import InputError
from compressor.training import GradualPruning
from compressor.training.accelerate import sparse_training
from compressor.training.sparsity import MaskSparsity, Proximal, Within, silenced
from tests.training.conftest import make_data, make_net


def prepared(accelerator: Accelerator) -> tuple[Any, Any, Any]:
    net = make_net()
    loader = DataLoader(TensorDataset(*make_data()), 4)
    return accelerator.prepare(net, torch.optim.SGD(net.parameters(), 0.05), loader)


def test_exactly_the_planned_channels_become_zero() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    net, optimizer, loader = prepared(accelerator)
    graph = cp.capture(net, make_data()[0])
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    regularizer = MaskSparsity(plan, graph, Proximal(Within([0.05] * 3)))
    with sparse_training(accelerator, optimizer, regularizer):
        for x, y in loader:
            with accelerator.accumulate(net):
                accelerator.backward(F.cross_entropy(net(x), y))
                optimizer.step()
                optimizer.zero_grad()
    assert regularizer.steps_done == 3  # six batches, two for each step
    assert silenced(plan, graph, tolerance=0.0).done
    assert not optimizer.optimizer._optimizer_step_pre_hooks


def test_gradual_pruning_takes_the_prepared_optimizer() -> None:
    accelerator = Accelerator(cpu=True)
    net, optimizer, loader = prepared(accelerator)
    pruning = GradualPruning(
        accelerator.unwrap_model(net), make_data()[0], budget=cp.budget.Uniform(0.5), steps=2
    )
    for _ in range(3):
        for x, y in loader:
            accelerator.backward(F.cross_entropy(net(x), y))
            optimizer.step()
            optimizer.zero_grad()
        if not pruning.done:
            pruning.step_(optimizer.optimizer)
    assert net[0].out_channels == 4


def test_it_is_removed_after_an_error() -> None:
    accelerator = Accelerator(cpu=True)
    net, optimizer, _ = prepared(accelerator)
    graph = cp.capture(net, make_data()[0])
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    regularizer = MaskSparsity(plan, graph, Proximal(0.1))
    with pytest.raises(ZeroDivisionError), sparse_training(accelerator, optimizer, regularizer):
        raise ZeroDivisionError
    assert not optimizer.optimizer._optimizer_step_pre_hooks


def test_an_optimizer_that_was_not_prepared() -> None:
    net = make_net()
    graph = cp.capture(net, make_data()[0])
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    regularizer = MaskSparsity(plan, graph, Proximal(0.1))
    plain = torch.optim.SGD(net.parameters(), 0.1)
    with (
        pytest.raises(InputError, match=r"accelerator\.prepare returned, got SGD"),
        sparse_training(Accelerator(cpu=True), plain, regularizer),
    ):
        pass


def test_scattered_parameters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = Accelerator(cpu=True)
    _, optimizer, _ = prepared(accelerator)
    monkeypatch.setattr(type(accelerator), "distributed_type", DistributedType.FSDP)
    with (
        pytest.raises(InputError, match="FSDP scatters"),
        sparse_training(accelerator, optimizer, None),  # type: ignore[arg-type]
    ):
        pass
