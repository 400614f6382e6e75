"""The adversarial loss against closed forms, its discriminator's state, and trainings that go on."""

from __future__ import annotations

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from compressor.errors import FileError, InputError, ModelError, TrainingError
from compressor.models import ClutterDiscriminator, ClutterFilter
from compressor.training import Adversarial, ChangedPixels, Recipe, Validation, fine_tune_

RATE = 0.3


class Scale(nn.Module):
    """y = g · x, with dropout that only a training sees."""

    def __init__(self, g: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(g, dtype=torch.float64))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.g * x)


class Weigh(nn.Module):
    """The logit ⟨a, v⟩ of each image."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a.clone())

    def forward(self, v: Tensor) -> Tensor:
        return v @ self.a


def plain_descent(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=RATE)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def dot(a: list[float], v: list[float]) -> float:
    return sum(x * y for x, y in zip(a, v, strict=True))


def stepped(a: list[float], images: list[list[float]], truth: float) -> list[float]:
    """One step of plain descent of the mean of −log p: its gradient is (p − truth) · v."""
    new = list(a)
    for v in images:
        for i, value in enumerate(v):
            new[i] -= RATE * (sigmoid(dot(a, v)) - truth) * value / len(images)
    return new


X = torch.tensor([[0.2, 0.9, -0.4], [1.0, 0.3, 0.5]], dtype=torch.float64)
Y = torch.tensor([[0.25, 0.5, -0.6], [0.5, 0.3, 0.9]], dtype=torch.float64)
A, G, WEIGHT = [0.7, -0.2, 0.4], 0.8, 0.1


@pytest.mark.parametrize("masked", ["nothing", "discriminator", "both"])
def test_values_and_gradients_are_those_of_the_closed_form(masked: str) -> None:
    model, judge = Scale(G), Weigh(torch.tensor(A, dtype=torch.float64))
    options = Adversarial(
        judge,
        weight=WEIGHT,
        optimizer=plain_descent,
        mask=None if masked == "nothing" else ChangedPixels(0.1),
        mask_model=masked == "both",
    )
    with options.attach(model) as loss:
        value = loss(model(X), Y)
        value.backward()

    x, y = X.tolist(), Y.tolist()
    mask = [[float(abs(b - c) >= 0.1) for b, c in zip(s, t, strict=True)] for s, t in zip(x, y, strict=True)]
    assert sum(map(sum, mask)) == 4  # some pixels changed, some did not
    ones = [[1.0] * 3] * 2
    own, models = (ones if masked == "nothing" else mask), (mask if masked == "both" else ones)
    real = [[m * b for m, b in zip(*pair, strict=True)] for pair in zip(own, y, strict=True)]
    fake = [[m * G * b for m, b in zip(*pair, strict=True)] for pair in zip(own, x, strict=True)]
    a = stepped(stepped(A, real, 1.0), fake, 0.0)
    shown = [[m * b for m, b in zip(*pair, strict=True)] for pair in zip(models, x, strict=True)]
    scores = [dot(a, v) for v in shown]  # the logit is G times this
    error = [G * b - c for s, t in zip(x, y, strict=True) for b, c in zip(s, t, strict=True)]
    flat = [b for s in x for b in s]
    entropy = sum(-math.log(sigmoid(G * s)) for s in scores) / 2
    expected = (1 - WEIGHT) * sum(e * e for e in error) / 6 + WEIGHT * entropy
    slope = (1 - WEIGHT) * sum(2 * e * b for e, b in zip(error, flat, strict=True)) / 6
    slope += WEIGHT * sum((sigmoid(G * s) - 1) * s for s in scores) / 2
    assert judge.a.tolist() == pytest.approx(a, abs=1e-12)
    assert float(value.detach()) == pytest.approx(expected, abs=1e-12)
    assert float(model.g.grad) == pytest.approx(slope, abs=1e-12)  # type: ignore[arg-type]
    assert judge.a.grad is None  # the model's loss is not what the discriminator learns from


def test_the_defaults_are_the_published_numbers() -> None:
    judge = Weigh(torch.zeros(3, dtype=torch.float64))
    model = Scale(1.0)
    options = Adversarial(judge)
    with options.attach(model) as loss:
        value = float(loss(model(X), Y).detach())
    # Adam's first step is its rate, in the direction of the sign.
    a = 1e-4 * Y.sum(0).sign()
    assert judge.a.abs().max() <= 2e-4 + 1e-9 and bool((judge.a - a).abs().max() < 1.1e-4)
    entropy = F.softplus(-(X @ judge.a.detach())).mean()
    assert value == pytest.approx(0.999 * float((X - Y).square().mean()) + 0.001 * float(entropy), abs=1e-12)


def test_the_mask_takes_the_threshold_itself() -> None:
    x, y = torch.tensor([0.0, 0.25, 0.5]), torch.tensor([0.25, 0.25, 0.375])
    assert ChangedPixels(0.25)(x, y).tolist() == [1, 0, 0]


@pytest.mark.parametrize("fresh", [True, False])
def test_fakes_are_those_of_eval_mode_unless_asked_otherwise(fresh: bool) -> None:
    seen: list[Tensor] = []
    judge = Weigh(torch.tensor(A, dtype=torch.float64))
    judge.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model = Scale(G, dropout=0.5).train()
    with Adversarial(judge, fresh=fresh).attach(model) as loss:
        output = model(X)
        loss(output, Y)
    assert model.training and model.dropout.training
    real, fake, last = seen
    assert torch.equal(real, Y) and torch.equal(last, output)
    assert torch.equal(fake, G * X if fresh else output)
    assert not fake.requires_grad and last.requires_grad


def test_the_discriminators_norms_learn_in_its_own_steps_alone() -> None:
    judge = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)).eval()
    norm: Any = judge[0]
    model = nn.Linear(3, 3)
    x, y = torch.rand(8, 3), 5 + torch.rand(8, 3)
    with Adversarial(judge, optimizer=plain_descent).attach(model) as loss:
        fakes = model(x).detach()
        loss(model(x), y)
    assert int(norm.num_batches_tracked) == 2
    expected = 0.9 * (0.1 * y.mean(0)) + 0.1 * fakes.mean(0)
    torch.testing.assert_close(norm.running_mean, expected)
    assert not judge.training  # as it was given


# -- in a training -------------------------------------------------------------------------------------


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))
    judge = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(3 * 16, 1)
    )
    return model, judge


def loader() -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(12, 1, 6, 6, generator=generator)
    own = torch.Generator().manual_seed(6)
    return DataLoader(TensorDataset(x, (x - 0.2).clamp(0, 1)), 3, shuffle=True, generator=own)


RECIPES = {
    "adam": Recipe(epochs=3, lr=1e-2, optimizer=partial(torch.optim.Adam, betas=(0.5, 0.999))),
    "autocast": Recipe(epochs=3, lr=1e-2, autocast=torch.bfloat16, accumulate=2, ema=0.9),
}


class Breaking:
    """The squared error, and an error of this kind in its n-th call: D has taken its steps before."""

    def __init__(self, at: int | None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.at, self.calls, self.error = at, 0, error

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return F.mse_loss(output, target)


def trained(recipe: Recipe, task: Any, **options: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    model, judge = pair()
    loss = Adversarial(judge, task, weight=0.3, mask=ChangedPixels(0.15))
    history = fine_tune_(model, loader(), loss, recipe, progress=False, **options)
    return model.state_dict(), judge.state_dict(), history


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.parametrize("at", [1, 3, 4, 5, 10, 12])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_training_that_is_taken_up_equals_one_in_one_go(
    tmp_path: Path, recipe: Recipe, at: int, error: type[BaseException]
) -> None:
    path = tmp_path / "training.pt"
    with pytest.raises(error):
        trained(recipe, Breaking(at, error), checkpoint=path)
    resumed = trained(recipe, Breaking(None), checkpoint=path)
    whole = trained(recipe, Breaking(None))
    assert resumed[2] == whole[2]
    for one, other in zip(resumed[:2], whole[:2], strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_step_that_fails_takes_the_discriminators_steps_back() -> None:
    model, judge = pair()
    before = copy.deepcopy(judge.state_dict())
    with pytest.raises(ZeroDivisionError):
        loss = Adversarial(judge, Breaking(1, ZeroDivisionError))
        fine_tune_(model, loader(), loss, RECIPES["adam"], progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in judge.state_dict().items())


def test_both_networks_learn_and_get_their_modes_back() -> None:
    model, judge = pair()
    (model.eval(), judge.eval())
    before = copy.deepcopy((model.state_dict(), judge.state_dict()))
    fine_tune_(model, loader(), Adversarial(judge), Recipe(epochs=1), progress=False)
    assert not any(module.training for network in (model, judge) for module in network.modules())
    for network, state in zip((model, judge), before, strict=True):
        assert all(not torch.equal(p, state[name]) for name, p in network.named_parameters())
        assert all(p.requires_grad for p in network.parameters())


def test_a_finished_training_gives_its_discriminator_back(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    whole = trained(RECIPES["adam"], F.mse_loss, checkpoint=path)
    again = trained(RECIPES["adam"], F.mse_loss, checkpoint=path)
    assert all(torch.equal(tensor, whole[1][name]) for name, tensor in again[1].items())


def test_a_validation_in_between_is_not_learnt_from(tmp_path: Path) -> None:
    x = torch.rand(4, 1, 6, 6)
    validation = Validation(batches=[(x, x)], metric=lambda out, y: -float((out - y).square().mean()))
    trained(RECIPES["adam"], F.mse_loss, validation=validation)


def test_the_clutter_filter_trains_against_its_discriminator() -> None:
    torch.manual_seed(0)
    model = ClutterFilter(width=2, levels=2, final_gamma=0.1)
    judge = ClutterDiscriminator(size=(16, 16, 4), width=2, depths=(1, 1))
    clean = torch.rand(4, 1, 16, 16, 4) / 2
    cluttered = clean.clone()
    cluttered[..., 4:8, 4:8, :] += 0.4
    batches = [(cluttered[i : i + 2], clean[i : i + 2]) for i in (0, 2)]
    recipe = Recipe(epochs=8, lr=3e-3, optimizer=partial(torch.optim.Adam, betas=(0.5, 0.999)))
    history = fine_tune_(model, batches, Adversarial(judge, mask=ChangedPixels()), recipe, progress=False)
    assert history.losses[-1] < 0.7 * history.losses[0]


# -- what does not fit -----------------------------------------------------------------------------------


def test_the_checkpoint_of_another_loss_is_refused(tmp_path: Path) -> None:
    path, recipe = tmp_path / "training.pt", Recipe(epochs=1, lr=0.01)
    model, judge = pair()
    fine_tune_(model, loader(), Adversarial(judge), recipe, checkpoint=path, progress=False)
    with pytest.raises(FileError, match=r"written with loss='Adversarial\(.*', and now it is 'mse_loss'"):
        fine_tune_(pair()[0], loader(), F.mse_loss, recipe, checkpoint=path, progress=False)
    other = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    with pytest.raises(FileError, match=r"another discriminator: '0\.weight' has shape"):
        fine_tune_(pair()[0], loader(), Adversarial(other), recipe, checkpoint=path, progress=False)
    plain = tmp_path / "plain.pt"
    fine_tune_(pair()[0], loader(), F.mse_loss, recipe, checkpoint=plain, progress=False)
    with pytest.raises(FileError, match=r"written with loss=.mse_loss., and now it is .Adversarial"):
        fine_tune_(pair()[0], loader(), Adversarial(judge), recipe, checkpoint=plain, progress=False)


def test_the_loss_of_no_new_forward_pass_is_refused() -> None:
    model, judge = Scale(G), Weigh(torch.tensor(A, dtype=torch.float64))
    with Adversarial(judge).attach(model) as loss:
        loss(output := model(X), Y)
        with pytest.raises(InputError, match="was not called since the last loss"):
            loss(output, Y)
    with pytest.raises(InputError, match="was not called"):  # nothing watches any more
        model(X)
        loss(output, Y)


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        (nn.Linear(3, 2), r"one logit for each of 2 images, \[2\] or \[2, 1\], got \[2, 2\]"),
        (nn.Flatten(0), "has no parameter"),
    ],
)
def test_a_discriminator_of_another_kind_is_refused(judge: nn.Module, words: str) -> None:
    model = Scale(G)
    with pytest.raises(InputError, match=words), Adversarial(judge.double()).attach(model) as loss:
        loss(model(X), Y)


class Remembering(nn.Linear):
    def get_extra_state(self) -> int:
        return 1


def test_a_discriminator_with_hidden_state_is_refused() -> None:
    with pytest.raises(ModelError, match="extra state"):
        Adversarial(Remembering(3, 1)).attach(Scale(G))


def test_a_network_is_not_its_own_discriminator() -> None:
    net = nn.Linear(3, 3)
    with pytest.raises(InputError, match="share 2 parameter"):
        Adversarial(nn.Sequential(net, nn.Linear(3, 1))).attach(net)


def test_a_discriminator_that_diverged_is_named() -> None:
    model, judge = Scale(G), Weigh(torch.full((3,), math.inf, dtype=torch.float64))
    with Adversarial(judge).attach(model) as loss, pytest.raises(TrainingError, match="loss on targets is"):
        loss(model(X), Y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Adversarial(nn.Linear(1, 1), weight=0),
        lambda: Adversarial(nn.Linear(1, 1), weight=1),
        lambda: Adversarial(nn.Linear(1, 1), mask_model=True),
        lambda: Adversarial("net"),  # type: ignore[arg-type]
        lambda: ChangedPixels(0),
        lambda: ChangedPixels()(torch.zeros(2), torch.zeros(1)),
    ],
)
def test_options_without_sense(make: Any) -> None:
    with pytest.raises(InputError):
        make()


def test_outputs_that_are_no_tensors_are_named() -> None:
    model = Scale(G)
    with Adversarial(Weigh(torch.ones(3))).attach(model) as loss:
        model(X)
        with pytest.raises(InputError, match="expected the output as a tensor, got dict"):
            loss({}, Y)
