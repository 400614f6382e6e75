"""Statistics measured anew are those of all examples together, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import InputError, RecoveryError
from compressor.recovery import reestimate_batch_norm_


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3), (8, 3)),
        (nn.BatchNorm1d(3), (8, 3, 5)),
        (nn.BatchNorm2d(3, momentum=None), (8, 3, 4, 5)),
        (nn.BatchNorm3d(3, affine=False), (8, 3, 2, 3, 4)),
        (nn.SyncBatchNorm(3), (8, 3, 4, 5)),
    ],
)
@pytest.mark.parametrize("sizes", [(8,), (2, 6), (5, 3)])
def test_statistics_are_those_of_all_examples_however_batched(
    norm: nn.Module, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    x = torch.randn(shape) * 3 + 100
    norm = copy.deepcopy(norm).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    assert reestimate_batch_norm_(norm, list(x.split(sizes))) == len(sizes)
    values = x.double().movedim(1, 0).flatten(1)
    assert isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor)
    torch.testing.assert_close(norm.running_mean.double(), values.mean(1), rtol=1e-7, atol=0)
    torch.testing.assert_close(norm.running_var.double(), values.var(1), rtol=1e-6, atol=0)
    changed = {n for n, v in norm.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"running_mean", "running_var"}
    assert norm.training


def test_one_batch_gives_what_torch_measures_in_training() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
    )
    x = torch.randn(6, 3, 8, 8)
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    for norm in (net[1], net[4]):
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(x)
    for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
        expected[name] = net.state_dict()[name].clone()
    reestimate_batch_norm_(net, [x])
    for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
        torch.testing.assert_close(net.state_dict()[name], expected[name])


def test_dropout_stays_off_and_the_random_state_is_left() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    x, state = torch.randn(16, 3), torch.get_rng_state()
    reestimate_batch_norm_(net, [x])
    torch.testing.assert_close(net[1].running_mean, x.mean(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert net[0].training


def test_a_batch_without_an_example_adds_nothing() -> None:
    found = []
    for batches in ([torch.arange(8.0).view(4, 2)], [torch.arange(8.0).view(4, 2), torch.ones(0, 2)]):
        norm = nn.BatchNorm1d(2)
        reestimate_batch_norm_(norm, batches)
        found.append(norm.running_var)
    assert torch.equal(*found)


def test_without_a_batch_norm_that_keeps_statistics_it_is_refused() -> None:
    for net in (nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)):
        with pytest.raises(InputError, match="no BatchNorm with running statistics"):
            reestimate_batch_norm_(net, [torch.ones(2, 2)])


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        ([], InputError, "gave no batch"),
        (3, InputError, "must be iterable"),
        ([torch.ones(4, 3), torch.full((4, 3), float("nan"))], RecoveryError, "not finite"),
        ([torch.ones(1, 3)], InputError, "one value for each channel"),
    ],
)
def test_bad_batches_leave_the_model_as_it_was(batches: object, error: type[Exception], words: str) -> None:
    net = nn.Sequential(nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(error, match=words):
        reestimate_batch_norm_(net, batches)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_norm_that_is_never_called_is_named() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with pytest.raises(RecoveryError, match="'idle' was called by no batch"):
        reestimate_batch_norm_(Idle(), [torch.randn(4, 3)])
