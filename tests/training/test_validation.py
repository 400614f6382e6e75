"""A metric over the whole split."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.training import Validation, accuracy


class Dictionary(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": x}


def test_the_metric_sees_the_whole_split() -> None:
    seen: list[tuple[int, ...]] = []

    def metric(outputs: Tensor, targets: Tensor) -> float:
        seen.append((*outputs.shape, *targets.shape))
        return 0.25

    batches = [(torch.rand(4, 3), torch.zeros(4)), (torch.rand(2, 3), torch.zeros(2))]
    assert Validation(batches=batches, metric=metric).measure(nn.Identity()) == 0.25
    assert seen == [(6, 3, 6)]


def test_outputs_and_targets_are_read_as_told() -> None:
    batches: Any = [{"x": torch.eye(3), "labels": torch.tensor([0, 1, 0])}]

    class Model(nn.Module):
        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"logits": x}

    validation = Validation(
        batches=batches, output=lambda out: out["logits"], target=lambda batch: batch["labels"]
    )
    assert validation.measure(Model()) == pytest.approx(2 / 3)


def test_outputs_that_are_no_tensors() -> None:
    with pytest.raises(InputError, match="output of a batch as a tensor, got dict"):
        Validation(batches=[(torch.eye(2), torch.tensor([0, 1]))]).measure(Dictionary())


def test_modes_are_given_back_and_no_gradients_are_kept() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[1].eval()
    seen: list[bool] = []

    def metric(outputs: Tensor, targets: Tensor) -> float:
        seen.append(outputs.requires_grad)
        return accuracy(outputs, targets)

    Validation(batches=[(torch.eye(2), torch.tensor([0, 1]))], metric=metric).measure(net)
    assert seen == [False] and net.training and not net[1].training


def test_a_metric_that_is_no_number() -> None:
    batches = [(torch.eye(2), torch.tensor([0, 1]))]
    with pytest.raises(InputError, match="not a number"):
        Validation(batches=batches, metric=lambda *_: float("nan")).measure(nn.Identity())


def test_an_empty_split() -> None:
    with pytest.raises(InputError, match="gave no batch"):
        Validation(batches=[]).measure(nn.Identity())


def test_a_metric_that_is_no_number_and_rows_that_do_not_match() -> None:
    x, y = torch.eye(3), torch.tensor([0, 1, 2])
    with pytest.raises(InputError, match="must return one number, got NoneType"):
        Validation(batches=[(x, y)], metric=lambda *_: None).measure(nn.Identity())  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match=r"as many targets as outputs .* \[3, 3\] and targets \[2\]"):
        Validation(batches=[(x, y[:2])]).measure(nn.Identity())
