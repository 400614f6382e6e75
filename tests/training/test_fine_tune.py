"""The loop: it trains, leaves nothing switched, and says what is wrong."""

from __future__ import annotations

import copy
import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

import compressor as cp
from compressor.errors import InputError, ModelError, TrainingError
from compressor.training import Recipe, Validation, accuracy, fine_tune_
from tests.training.conftest import make_data, make_loader, make_net

Batches = list[tuple[Tensor, Tensor]]


def message(*args: Any, error: type[Exception] = InputError, **kwargs: Any) -> str:
    with pytest.raises(error) as caught:
        fine_tune_(*args, **kwargs)
    return str(caught.value)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# -- the steps -----------------------------------------------------------------------------------


def test_it_learns(net: nn.Sequential, batches: Batches) -> None:
    images, labels = make_data(60, seed=9)
    before = accuracy(net.eval()(images), labels)
    history = fine_tune_(net, batches, F.cross_entropy, Recipe(epochs=12, lr=0.05))
    assert history.losses[-1] < 0.5 * history.losses[0]
    assert accuracy(net.eval()(images), labels) > max(before, 0.8)


def test_plain_sgd_is_the_loop_everyone_writes(batches: Batches) -> None:
    """Cosine at the middle of each step, Nesterov momentum, weight decay: written out once more."""
    ours, naive = make_net(), make_net()
    naive[3].p = ours[3].p = 0.0  # type: ignore[assignment]
    fine_tune_(ours, batches, F.cross_entropy, Recipe(epochs=2, lr=0.1, weight_decay=1e-2))
    optimizer = torch.optim.SGD(naive.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)
    naive.train()
    for step, (x, y) in enumerate(batches * 2):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 + np.cos(np.pi * (step + 0.5) / 8)) / 2
        optimizer.zero_grad()
        F.cross_entropy(naive(x), y).backward()
        optimizer.step()
    for mine, theirs in zip(ours.state_dict().values(), naive.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_accumulated_batches_step_like_one_large_batch() -> None:
    x, y = make_data(24)
    recipe = partial(Recipe, epochs=2, lr=0.1, schedule=lambda _: 1.0)
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(36, 3)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    large = [(x[:12], y[:12]), (x[12:], y[12:])]
    small = list(zip(x.split(4), y.split(4), strict=True))
    fine_tune_(nets[0], large, F.cross_entropy, recipe())
    fine_tune_(nets[1], small, F.cross_entropy, recipe(accumulate=3))
    torch.testing.assert_close(nets[0][1].weight, nets[1][1].weight)


def test_the_last_window_may_be_short() -> None:
    x, y = make_data(20)
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(36, 3)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    recipe = partial(Recipe, epochs=1, lr=0.1, schedule=lambda _: 1.0)
    fine_tune_(nets[0], [(x[:16], y[:16]), (x[16:], y[16:])], F.cross_entropy, recipe())
    fine_tune_(nets[1], list(zip(x.split(4), y.split(4), strict=True)), F.cross_entropy, recipe(accumulate=4))
    torch.testing.assert_close(nets[0][1].weight, nets[1][1].weight)


def test_the_gradient_is_clipped_as_a_whole() -> None:
    layer = nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    recipe = Recipe(
        epochs=1, lr=1.0, clip_norm=0.5, weight_decay=0, optimizer=torch.optim.SGD, schedule=lambda _: 1.0
    )
    fine_tune_(layer, [(torch.tensor([[300.0, 400.0]]), torch.zeros(1))], lambda out, _: out.sum(), recipe)
    torch.testing.assert_close(before - layer.weight.detach(), torch.tensor([[0.3, 0.4]]), rtol=0, atol=1e-5)


def test_vectors_need_not_decay() -> None:
    layer = nn.Linear(2, 2)
    nn.init.ones_(layer.bias)
    seen: list[Optimizer] = []

    def factory(groups: Any, **options: Any) -> Optimizer:
        seen.append(torch.optim.AdamW(groups, **options))
        return seen[0]

    recipe = Recipe(epochs=1, weight_decay=0.3, decay_vectors=False, optimizer=factory)
    fine_tune_(layer, [(torch.zeros(1, 2), torch.tensor([0]))], F.cross_entropy, recipe)
    groups = seen[0].param_groups
    assert [(g["weight_decay"], [p.dim() for p in g["params"]]) for g in groups] == [(0.3, [2]), (0.0, [1])]


def test_batch_norms_keep_their_statistics_when_frozen(net: nn.Sequential, batches: Batches) -> None:
    before = tensors(net)
    fine_tune_(net, batches, F.cross_entropy, Recipe(epochs=1, freeze_batch_norm=True))
    after = net.state_dict()
    assert torch.equal(before["1.running_var"], after["1.running_var"])
    assert not torch.equal(before["1.weight"], after["1.weight"])
    fine_tune_(net, batches, F.cross_entropy, Recipe(epochs=1))
    assert not torch.equal(before["1.running_var"], net.state_dict()["1.running_var"])


def test_bfloat16_trains_weights_of_float32(net: nn.Sequential, batches: Batches) -> None:
    kinds: set[torch.dtype] = set()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        kinds.add(output.dtype)
        return F.cross_entropy(output, target)

    history = fine_tune_(net, batches, loss, Recipe(epochs=6, lr=0.05, autocast=torch.bfloat16))
    assert kinds == {torch.bfloat16} and net[0].weight.dtype == torch.float32
    assert history.losses[-1] < history.losses[0]


def test_an_overflow_of_half_precision_skips_the_step(net: nn.Sequential, batches: Batches) -> None:
    """The scaler starts at 65,536; gradients times that overflow, and no weight may become infinite."""
    recipe = Recipe(epochs=1, lr=0.05, autocast=torch.float16, batches_per_epoch=1)
    before = tensors(net)
    fine_tune_(net, batches, lambda out, y: 1e3 * F.cross_entropy(out, y), recipe)
    assert torch.equal(net[0].weight, before["0.weight"])
    history = fine_tune_(net, batches, F.cross_entropy, Recipe(epochs=6, lr=0.05, autocast=torch.float16))
    assert history.losses[-1] < history.losses[0] and bool(torch.isfinite(net[0].weight).all())


def test_half_precision_that_never_finds_a_scale_is_an_error(
    net: nn.Sequential, batches: Batches, caplog: pytest.LogCaptureFixture
) -> None:
    """A derivative that is no number is skipped like an overflow, for ever."""
    before = tensors(net)
    loss = lambda out, y: F.cross_entropy(out, y) + (out * 0).sum().sqrt()  # noqa: E731
    recipe = Recipe(epochs=20, autocast=torch.float16)
    assert "overflowed float16 in 32 steps in a row" in message(
        net, batches, loss, recipe, error=TrainingError
    )
    assert torch.equal(net[0].weight, before["0.weight"])
    assert "epoch 1: 4 steps were left out" in caplog.text


def test_an_average_of_a_network_with_patched_calls() -> None:
    net = cp.models.create("resnet20_cifar", width=4)
    x, y = torch.randn(8, 3, 16, 16), torch.arange(8)
    small = cp.prune(net, x, budget=cp.budget.Uniform(0.5))
    fine_tune_(small, [(x, y)] * 2, F.cross_entropy, Recipe(epochs=1, ema=0.9))
    assert small(x).shape == (8, 10)


def test_adamw_with_warm_up_and_average(net: nn.Sequential, batches: Batches) -> None:
    recipe = Recipe(epochs=8, lr=0.01, optimizer=torch.optim.AdamW, warmup_epochs=1, ema=0.9)
    history = fine_tune_(net, batches, F.cross_entropy, recipe)
    assert history.losses[-1] < history.losses[0]
    assert history.learning_rates[0] == pytest.approx(0.01 * 3.5 / 4)
    assert history.best_epoch is None and history.metrics == ()


# -- validation ----------------------------------------------------------------------------------


def test_the_best_weights_come_back(net: nn.Sequential, batches: Batches) -> None:
    found: list[dict[str, Tensor]] = []
    given = iter([0.5, 0.9, 0.7])

    def metric(outputs: Tensor, targets: Tensor) -> float:
        found.append(tensors(net))
        return next(given)

    validation = Validation(batches=batches, metric=metric)
    history = fine_tune_(net, batches, F.cross_entropy, Recipe(epochs=3), validation=validation)
    assert history.best_epoch == 1 and history.metrics == (0.5, 0.9, 0.7) and not history.stopped_early
    assert same(tensors(net), found[1]) and not same(found[2], found[1])


def test_it_stops_when_nothing_gets_better(net: nn.Sequential, batches: Batches) -> None:
    given = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    validation = Validation(batches=batches, metric=lambda *_: next(given), larger_is_better=False)
    recipe = Recipe(epochs=9, patience=2)
    history = fine_tune_(net, batches, F.cross_entropy, recipe, validation=validation)
    assert history.stopped_early and history.best_epoch == 1 and len(history.losses) == 4


def test_what_is_averaged_is_what_is_measured_and_kept(net: nn.Sequential, batches: Batches) -> None:
    outputs: list[Tensor] = []

    def metric(output: Tensor, targets: Tensor) -> float:
        outputs.append(output)
        return float(len(outputs))

    x = torch.cat([x for x, _ in batches])
    validation = Validation(batches=batches, metric=metric)
    fine_tune_(net, batches, F.cross_entropy, Recipe(epochs=2, ema=0.9), validation=validation)
    torch.testing.assert_close(net.eval()(x), outputs[1])


def test_patience_needs_a_validation(net: nn.Sequential, batches: Batches) -> None:
    assert "validation=" in message(net, batches, F.cross_entropy, Recipe(patience=1))


# -- what is left ---------------------------------------------------------------------------------


def test_modes_gradients_and_random_states_are_given_back(net: nn.Sequential, batches: Batches) -> None:
    net.train()
    net[1].eval()
    modes = [module.training for module in net.modules()]
    torch.manual_seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    fine_tune_(net, batches, F.cross_entropy, Recipe(epochs=1))
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_seed_decides_everything() -> None:
    results = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        random.seed(noise)
        net = make_net()
        fine_tune_(net, make_loader(), F.cross_entropy, Recipe(epochs=1, seed=seed))
        results.append(tensors(net))
    assert same(results[0], results[1]) and not same(results[0], results[2])


def test_it_fits_between_the_steps_of_a_pruning(net: nn.Sequential, batches: Batches) -> None:
    before = tensors(net)
    between = partial(
        fine_tune_, batches=batches, loss=F.cross_entropy, recipe=Recipe(epochs=1), progress=False
    )
    x = batches[0][0]
    small = cp.prune(net, x, budget=cp.budget.Uniform(0.5), steps=3, between=between)
    assert small[0].out_channels == 4 and same(before, tensors(net))


class Halving:
    """A regulariser that halves one weight in every step, for as long as it is attached."""

    def __init__(self, weight: nn.Parameter) -> None:
        self.weight = weight
        self.steps = 0

    def attach(self, optimizer: Optimizer) -> Any:
        def halve(*_: object) -> None:
            assert self.weight.grad is not None
            self.weight.grad.zero_()
            with torch.no_grad():
                self.weight.mul_(0.5)
            self.steps += 1

        return optimizer.register_step_pre_hook(halve)


def test_a_regularizer_acts_in_every_step_and_is_removed(net: nn.Sequential, batches: Batches) -> None:
    weight = net[1].weight
    penalty = Halving(weight)
    recipe = Recipe(epochs=2, weight_decay=0, optimizer=torch.optim.SGD, accumulate=2)
    fine_tune_(net, batches, F.cross_entropy, recipe, regularizer=penalty)
    assert penalty.steps == 4
    torch.testing.assert_close(weight.detach(), torch.full((8,), 0.5**4))


def test_a_regularizer_is_removed_after_an_error(net: nn.Sequential, batches: Batches) -> None:
    removed: list[bool] = []

    class Watching:
        def attach(self, optimizer: Optimizer) -> Any:
            class Handle:
                def remove(self) -> None:
                    removed.append(True)

            return Handle()

    def fail(output: Tensor, target: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fine_tune_(net, batches, fail, regularizer=Watching())
    assert removed == [True]


# -- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [[], DataLoader([], 2)], ids=["list", "loader"])
def test_no_batches(net: nn.Sequential, empty: Any) -> None:
    assert "gave no batch" in message(net, empty, F.cross_entropy)


def test_an_iterator_is_refused_at_once(net: nn.Sequential, batches: Batches) -> None:
    assert "only once" in message(net, iter(batches), F.cross_entropy)


def test_what_is_no_loader(net: nn.Sequential) -> None:
    assert "must be iterable" in message(net, 3, F.cross_entropy)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Any:
        images, labels = make_data()
        yield from zip(images, labels, strict=True)


def test_a_stream_needs_the_length_of_an_epoch(net: nn.Sequential) -> None:
    loader = DataLoader(Stream(), 4)
    assert "batches_per_epoch" in message(net, loader, F.cross_entropy)
    history = fine_tune_(net, loader, F.cross_entropy, Recipe(epochs=2, batches_per_epoch=5))
    assert len(history.losses) == 2


def test_a_loader_that_dries_up_is_named(net: nn.Sequential, batches: Batches) -> None:
    class Once(list[Any]):
        def __iter__(self) -> Any:
            items = list(super().__iter__())
            self.clear()
            return iter(items)

    text = message(net, Once(batches), F.cross_entropy, Recipe(epochs=2))
    assert "epoch 2 gave no batch, expected 4" in text


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(), lambda o, t: F.cross_entropy(o, t)])
def test_labels_out_of_range(net: nn.Sequential, batches: Batches, loss: Any) -> None:
    batches[2] = batches[2][0], batches[2][1] + 5
    text = message(net, batches, loss)
    assert "epoch 1, batch 3" in text and "0 to 2" in text and "labels from 5 to 7" in text
    assert "8 outputs" in text


def test_the_ignored_label_is_no_fault(net: nn.Sequential, batches: Batches) -> None:
    batches[0][1][0] = -100
    fine_tune_(net, batches, F.cross_entropy, Recipe(epochs=1))
    batches[0][1][0] = 77
    fine_tune_(net, batches, nn.CrossEntropyLoss(ignore_index=77), Recipe(epochs=1))
    assert "labels from" in message(net, batches, F.cross_entropy)


def test_a_single_sample_for_a_batch_norm() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    x, y = make_data(7)
    loader = list(zip(x.split(6), y.split(6), strict=True))
    text = message(net, loader, F.cross_entropy)
    assert "epoch 1, batch 2" in text and "single sample" in text and "drop_last" in text
    fine_tune_(net, loader, F.cross_entropy, Recipe(epochs=1, freeze_batch_norm=True))


def test_a_loss_that_is_not_a_number_stops_before_the_step(net: nn.Sequential, batches: Batches) -> None:
    batches[1] = batches[1][0] * float("nan"), batches[1][1]
    expected = copy.deepcopy(net)
    recipe = Recipe(epochs=1, batches_per_epoch=4, schedule=lambda _: 1.0)
    text = message(net, batches, F.cross_entropy, recipe, error=TrainingError)
    assert "epoch 1, batch 2" in text and "nan" in text and "clip_norm" in text
    fine_tune_(expected, batches[:1], F.cross_entropy, recipe)
    assert same(tensors(net), tensors(expected))


def test_gradients_that_are_no_numbers_stop_before_the_step(net: nn.Sequential, batches: Batches) -> None:
    """The root of 0 has a finite value and no derivative: such a step would leave NaN in every weight."""
    calls = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        spoilt = 0.0 if len(calls) < 2 else (output * 0).sum().sqrt()
        return F.cross_entropy(output, target) + spoilt

    expected = copy.deepcopy(net)
    recipe = Recipe(epochs=1, clip_norm=1.0, schedule=lambda _: 1.0)
    text = message(net, batches, loss, recipe, error=TrainingError)
    assert "epoch 1, batch 2: the gradient of '0.weight', '0.bias', '1.weight' and 3 more holds NaN" in text
    fine_tune_(expected, batches[:1], F.cross_entropy, recipe)
    assert same(tensors(net), tensors(expected))


def test_gradients_that_are_spread_thin_are_looked_at_as_well() -> None:
    """Of an embedding only the rows that were read."""
    table = nn.Embedding(5, 3, sparse=True)
    plain = lambda groups, lr, weight_decay: torch.optim.SGD(groups, lr=lr)  # noqa: E731
    recipe, x, y = (
        Recipe(epochs=1, weight_decay=0, optimizer=plain),
        torch.tensor([1, 2]),
        torch.tensor([0, 1]),
    )
    assert len(fine_tune_(table, [(x, y)], F.cross_entropy, recipe).losses) == 1
    loss = lambda output, target: F.cross_entropy(output, target) + (output * 0).sum().sqrt()  # noqa: E731
    assert "'weight' holds NaN" in message(table, [(x, y)], loss, recipe, error=TrainingError)


def test_a_regularizer_that_refuses_in_the_step_leaves_the_model(
    net: nn.Sequential, batches: Batches
) -> None:
    class Refusing:
        def attach(self, optimizer: torch.optim.Optimizer) -> Any:
            def refuse(*_: object) -> None:
                raise InputError("not these weights")

            return optimizer.register_step_pre_hook(refuse)

    before = {name: tensor.clone() for name, tensor in tensors(net).items()}
    with pytest.raises(InputError, match="not these weights"):
        fine_tune_(net, batches, F.cross_entropy, regularizer=Refusing(), progress=False)
    assert same(tensors(net), before)


def test_buffers_that_a_forward_replaces_are_given_back(batches: Batches) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(36, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            return self.layer(x.flatten(1))

    net = Counting()
    batches[2] = batches[2][0] * float("nan"), batches[2][1]
    message(net, batches, F.cross_entropy, Recipe(epochs=1), error=TrainingError)
    assert int(net.calls) == 2


def test_errors_of_the_model_come_through_as_they_are(batches: Batches) -> None:
    class Faulty(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        fine_tune_(Faulty(2, 2), batches, F.cross_entropy)


def test_an_optimizer_of_other_parameters(net: nn.Sequential, batches: Batches) -> None:
    other = nn.Linear(2, 2)
    recipe = Recipe(optimizer=lambda _, **options: torch.optim.SGD(other.parameters(), **options))
    assert "none of the model's" in message(net, batches, F.cross_entropy, recipe)


def test_an_optimizer_that_is_none(net: nn.Sequential, batches: Batches) -> None:
    assert "must return a torch optimizer" in message(
        net, batches, F.cross_entropy, Recipe(optimizer=lambda *_, **__: None)
    )  # type: ignore[arg-type,return-value]


def test_nothing_to_train(net: nn.Sequential, batches: Batches) -> None:
    net.requires_grad_(False)
    assert "requires_grad_" in message(net, batches, F.cross_entropy, error=ModelError)


def test_a_wrapped_model_is_refused(net: nn.Sequential, batches: Batches) -> None:
    assert "model.module" in message(nn.DataParallel(net), batches, F.cross_entropy, error=ModelError)


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda output, target: output, "shape [6, 3]"),
        (lambda output, target: output.sum().item(), "float"),
        (lambda output, target: output.detach().sum(), "without gradient"),
    ],
)
def test_a_loss_that_is_no_loss(net: nn.Sequential, batches: Batches, loss: Any, found: str) -> None:
    assert found in message(net, batches, loss)


def test_no_model_and_no_recipe(net: nn.Sequential, batches: Batches) -> None:
    assert "torch.nn.Module, got str" in message("net", batches, F.cross_entropy)
    assert "needs a Recipe, got int" in message(net, batches, F.cross_entropy, 10)


def test_no_loss_at_all(net: nn.Sequential, batches: Batches) -> None:
    assert "must be a function" in message(net, batches, 0.5)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"validation": [1]}, "validation must be a Validation, got list"),
        ({"regularizer": 3}, r"must have a method attach\(optimizer\)"),
    ],
)
def test_what_is_no_validation_and_no_regularizer(
    net: nn.Sequential, batches: Batches, options: dict[str, Any], found: str
) -> None:
    with pytest.raises(InputError, match=found):
        fine_tune_(net, batches, F.cross_entropy, **options)


def test_what_cannot_be_trained_is_said_at_once(net: nn.Sequential, batches: Batches) -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ModelError, match=r"'1.weight' is lazy"):
        fine_tune_(lazy, batches, F.cross_entropy)
    with pytest.raises(ModelError, match=r"float16, and .* train model.float\(\)"):
        fine_tune_(net.half(), batches, F.cross_entropy, Recipe(autocast=torch.float16))

    def several(groups: Any, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        return torch.optim.LBFGS([p for group in groups for p in group["params"]], lr=lr)

    with pytest.raises(InputError, match="the LBFGS evaluates the loss itself"):
        fine_tune_(net.float(), batches, F.cross_entropy, Recipe(optimizer=several))


@pytest.mark.parametrize("factor", [float("nan"), -1.0, float("inf"), None, "half"])
def test_a_schedule_without_sense(net: nn.Sequential, batches: Batches, factor: Any) -> None:
    recipe = Recipe(epochs=1, schedule=lambda done: factor)
    before = {name: tensor.clone() for name, tensor in tensors(net).items()}
    assert f"returned {factor!r} for the part" in message(net, batches, F.cross_entropy, recipe)
    assert same(tensors(net), before)
