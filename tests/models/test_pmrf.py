"""The flow against closed forms: a Gaussian whose optimal velocity is linear, and what the sources are."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import compressor as cp
from compressor.errors import InputError
from compressor.models import (
    FromObservation,
    FromPosteriorMean,
    GivenObservation,
    GivenPosteriorMean,
    PosteriorMean,
    RestorationUNet,
    Restorer,
    Source,
)
from compressor.models.rectified_flow import euler, flow_pair, stratified_times
from compressor.training import Mapped, Recipe, Validation, fine_tune_

# X ~ N(0, 1), Y = X + N(0, s²): s and σ_s; MMSE, MSE of exact posterior sampling, of the exact flow, of
# K = 1, 5, 25, 100 Euler steps, and the variance of the output at K = 25.
GAUSSIAN = [
    (0.5, 0.0, 0.2, 0.4, 0.21115, (0.20000, 0.20709, 0.21025, 0.21092), 0.99140),
    (0.5, 0.1, 0.2, 0.4, 0.22222, (0.20988, 0.21773, 0.22123, 0.22197), 0.99095),
    (1.0, 0.0, 0.5, 1.0, 0.58579, (0.50000, 0.55310, 0.57847, 0.58392), 0.97462),
    (1.0, 0.1, 0.5, 1.0, 0.59972, (0.50980, 0.56550, 0.59206, 0.59776), 0.97404),
    (1.0, 0.3, 0.5, 1.0, 0.69811, (0.57627, 0.65208, 0.68777, 0.69547), 0.96996),
]


def optimal(v: float, s: float) -> nn.Module:
    """The velocity z V'(t)/(2 V(t)), with V(t) the variance of t X + (1 − t) Z_0."""

    class Velocity(nn.Module):
        def forward(self, z: Tensor, t: Tensor) -> Tensor:
            start = 1 - v + s * s
            variance = t**2 + (1 - t) ** 2 * start + 2 * t * (1 - t) * (1 - v)
            slope = 2 * t - 2 * (1 - t) * start + 2 * (1 - 2 * t) * (1 - v)
            return z * (0.5 * slope / variance)[:, None]

    return Velocity()


def moments(restorer: Restorer, sn: float) -> tuple[float, float]:
    """MSE and variance of the output: a linear map of (x, n, ε), read off by one unit vector for each."""
    unit = torch.eye(3, dtype=torch.float64)
    x, n, noise = unit[:, :1], sn * unit[:, 1:2], unit[:, 2:]
    out = restorer(x + n, noise)
    return float((out - x).square().sum()), float(out.square().sum())


@pytest.mark.parametrize("row", GAUSSIAN, ids=lambda row: f"noise {row[0]} source {row[1]}")
def test_the_gaussian_table(row: tuple[float, float, float, float, float, tuple[float, ...], float]) -> None:
    sn, s, mmse, sampling, exact, by_steps, variance = row
    v = sn**2 / (1 + sn**2)

    class Mean(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            return y * (1 - v)

    restorer = Restorer(
        optimal(v, s), FromPosteriorMean(noise=s), channels=1, posterior_mean=Mean(), limits=None
    )
    for steps, expected in zip((1, 5, 25, 100), by_steps, strict=True):
        restorer.steps = steps
        assert moments(restorer, sn)[0] == pytest.approx(expected, abs=1e-5)
    restorer.steps = 25
    assert moments(restorer, sn)[1] == pytest.approx(variance, abs=1e-5)
    restorer.steps = 2000
    assert moments(restorer, sn)[0] == pytest.approx(exact, abs=2e-4)
    assert v == pytest.approx(mmse) and 2 * v == pytest.approx(sampling) and exact < sampling


def test_one_step_without_source_noise_returns_the_posterior_mean() -> None:
    mean = PosteriorMean(nn.Linear(3, 3))
    restorer = Restorer(
        optimal(0.5, 0.0), FromPosteriorMean(noise=0.0), channels=3, steps=1, posterior_mean=mean, limits=None
    )
    y = torch.rand(4, 3)
    assert torch.allclose(restorer.restore(y), mean(y), atol=1e-6)


def test_euler_steps_are_taken_at_the_beginning_of_each_part() -> None:
    seen: list[float] = []

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return z

    end = euler(velocity, torch.ones(1, 1), steps=4)
    assert seen == [0.0, 0.25, 0.5, 0.75]
    assert float(end) == pytest.approx(1.25**4)


def test_the_error_of_euler_falls_with_the_steps() -> None:
    errors = [
        abs(float(euler(lambda z, t: z, torch.ones(1, 1, dtype=torch.float64), steps=k)) - math.e)
        for k in (50, 100)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)  # first order


def test_times_are_stratified_over_all_processes() -> None:
    parts = [stratified_times(8, rank=rank, world=4) for rank in range(4)]
    assert torch.equal((torch.cat(parts) * 32).int(), torch.arange(32, dtype=torch.int32))
    assert not torch.equal(parts[0] * 32 % 1, parts[1] * 32 % 1)
    with pytest.raises(InputError, match=r"rank must lie in 0\.\.1, got 2"):
        stratified_times(2, rank=2, world=2)


def test_a_time_never_rounds_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), 1 - 2**-24))
    assert float(stratified_times(3).max()) < 1


@pytest.mark.parametrize(
    ("source", "start", "condition"),
    [
        (FromPosteriorMean(noise=0.5), 3.5, None),
        (FromObservation(noise=0.5), 2.5, None),
        (GivenObservation(), 1.0, 2.0),
        (GivenPosteriorMean(), 1.0, 3.0),
    ],
)
def test_where_each_flow_starts_and_what_it_is_told(
    source: Source, start: float, condition: float | None
) -> None:
    y, mean, noise = (torch.full((1, 1, 2, 2), value) for value in (2.0, 3.0, 1.0))
    assert torch.equal(source.start(y, mean, noise), torch.full_like(y, start))
    told = source.condition(y, mean)
    assert told is None if condition is None else torch.equal(told, torch.full_like(y, condition))  # type: ignore[arg-type]


def test_a_grey_observation_starts_in_every_channel_and_is_one_channel_as_a_condition() -> None:
    y, x = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    flow = Restorer(nn.Identity(), FromObservation(), channels=3)
    (state, _), target = flow.pair(y, x)
    assert state.shape == target.shape == x.shape
    told = Restorer(nn.Identity(), GivenObservation(), channels=3)
    (state, _), target = told.pair(y, x)
    assert state.shape == (2, 4, 4, 4) and target.shape == x.shape
    assert torch.equal(state[:, 3:], y)


def test_a_pair_lies_on_the_line_from_start_to_image() -> None:
    flow = Restorer(nn.Identity(), FromObservation(noise=0.0), channels=1)
    y, x = torch.rand(5, 1, 2, 2), torch.rand(5, 1, 2, 2)
    (state, t), target = flow.pair(y, x)
    assert torch.equal(target, x - y)
    assert torch.allclose(state, y + t.view(-1, 1, 1, 1) * target, atol=1e-6)
    assert torch.equal((t * 5).int(), torch.arange(5, dtype=torch.int32))


def test_the_clip_is_in_the_loss_unless_it_is_asked_out_of_it() -> None:
    for inside, zero in ((True, True), (False, False)):
        layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(layer.weight, 2.0)
        mean = PosteriorMean(layer, clip_in_training=inside)
        mse_loss(mean(torch.ones(1, 1)), torch.zeros(1, 1)).backward()
        assert layer.weight.grad is not None
        assert (float(layer.weight.grad) == 0) is zero
        assert mean.eval()(torch.ones(1, 1)).item() == 1.0


def test_the_first_stage_stays_in_eval_mode_and_gets_no_gradient() -> None:
    mean = PosteriorMean(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)))
    flow = Restorer(nn.Identity(), FromPosteriorMean(), channels=4, posterior_mean=mean).train()
    assert not mean.training and not mean.network.training
    (state, _), target = flow.pair(torch.rand(2, 4), torch.rand(2, 4))
    assert not state.requires_grad and not target.requires_grad
    assert all(parameter.requires_grad for parameter in mean.parameters())  # as it came
    mean.train()  # as a training of its own may leave it
    flow.pair(torch.rand(2, 4), torch.rand(2, 4))
    assert not mean.network.training


def tiny(*, condition: int = 0) -> RestorationUNet:
    torch.manual_seed(0)
    return RestorationUNet(in_channels=1 + condition, out_channels=1, width=4, levels=2, time_width=8)


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = [torch.rand(8, 1, 8, 8, generator=generator) for _ in range(3)]
    return [((a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1), a) for a in x]


def test_an_interrupted_training_goes_on_to_the_same_bit(tmp_path: Path) -> None:
    mean = PosteriorMean(nn.Identity())
    recipe = Recipe(epochs=3, lr=1e-3, optimizer=partial(torch.optim.AdamW, betas=(0.9, 0.95)), ema=0.9)

    def trained(loss: object, checkpoint: Path | None) -> RestorationUNet:
        velocity = tiny()
        flow = Restorer(velocity, FromPosteriorMean(noise=0.1), channels=1, posterior_mean=mean)
        fine_tune_(velocity, Mapped(batches(), flow.pair), loss, recipe, checkpoint=checkpoint)  # type: ignore[arg-type]
        return velocity

    class Stopping:
        calls = 0

        def __init__(self) -> None:
            self.__qualname__ = mse_loss.__qualname__  # another loss would be refused

        def __call__(self, output: Tensor, target: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 5:
                raise KeyboardInterrupt
            return mse_loss(output, target)

    whole = trained(mse_loss, None)
    with pytest.raises(KeyboardInterrupt):
        trained(Stopping(), tmp_path / "flow.pt")
    resumed = trained(mse_loss, tmp_path / "flow.pt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_what_is_validated_and_kept_is_the_average_of_the_weights() -> None:
    recipe = partial(Recipe, epochs=2, lr=1e-2, optimizer=torch.optim.AdamW)
    velocity, raw, seen = tiny(), tiny(), []
    flow = Restorer(velocity, FromObservation(), channels=1)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(raw.head.weight.detach().clone())
        return mse_loss(output, target)

    pairs = Mapped(batches(), flow.pair)
    fine_tune_(raw, pairs, loss, recipe())
    validated: list[Tensor] = []

    def metric(output: Tensor, target: Tensor) -> float:
        validated.append(output)
        return float(len(validated))

    held_out = next(iter(pairs))
    validation = Validation(batches=[held_out], metric=metric)
    fine_tune_(velocity, pairs, mse_loss, recipe(ema=0.9999), validation=validation)
    weights = [*seen[1:], raw.head.weight.detach()]
    average = weights[0]
    for n, new in enumerate(weights[1:], start=1):
        decay = (1 + n) / (10 + n)
        average = decay * average + (1 - decay) * new
    assert torch.allclose(velocity.head.weight, average, atol=1e-7)
    assert not torch.allclose(raw.head.weight, average, atol=1e-4)
    (state, t), _ = held_out
    assert torch.allclose(velocity(state, t), validated[-1], atol=1e-7)


def test_the_whole_restorer_is_one_module_that_is_captured_and_verified() -> None:
    mean = PosteriorMean(RestorationUNet(in_channels=1, out_channels=1, width=4, levels=2))
    restorer = Restorer(tiny(), FromPosteriorMean(), channels=1, steps=2, posterior_mean=mean).eval()
    example = torch.rand(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    graph = cp.capture(restorer, *example)
    plan = cp.plan(cp.score(graph, cp.scoring.Norm(p=2)), cp.budget.Macs(0.5))
    small = cp.apply(restorer, plan)
    cp.verify(restorer, small, plan, *example)
    assert cp.profile(small, *example).macs < 0.55 * cp.profile(restorer, *example).macs


def test_what_cannot_be_restored_is_refused() -> None:
    flow = Restorer(nn.Identity(), FromObservation(), channels=3)
    with pytest.raises(InputError, match="needs the first stage"):
        Restorer(nn.Identity(), FromPosteriorMean(), channels=3)
    with pytest.raises(InputError, match="steps must be an integer of at least 1, got 0"):
        Restorer(nn.Identity(), FromObservation(), channels=3, steps=0)
    with pytest.raises(InputError, match="steps must be"):
        euler(lambda z, t: z, torch.zeros(1, 1), steps=0)
    with pytest.raises(InputError, match="noise must be at least 0 and finite, got -1"):
        FromPosteriorMean(noise=-1)
    with pytest.raises(InputError, match="noise must be"):
        FromObservation(noise=math.nan)
    with pytest.raises(InputError, match="divide 8-bit images by 255"):
        flow.restore(torch.full((1, 3, 4, 4), 200.0))
    with pytest.raises(InputError, match="look for NaN"):
        flow.restore(torch.full((1, 3, 4, 4), math.nan))
    with pytest.raises(InputError, match=r"floats \[N, C, \.\.\.\], got torch.uint8"):
        flow.restore(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"y \[1, 1, 2, 2\] needs x \[1, 3, 2, 2\], got \[1, 3, 4, 4\]"):
        flow.pair(torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 4, 4))
    with pytest.raises(InputError, match=r"times must lie in \[0, 1\], got 1.5 to 1.5"):
        flow_pair(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([1.5]))
    with pytest.raises(InputError, match=r"starts in 3 channels, expected 1; y is \[1, 3, 2, 2\]"):
        Restorer(nn.Identity(), FromObservation(), channels=1).restore(torch.zeros(1, 3, 2, 2))
    with pytest.raises(InputError, match="one shape"):
        flow_pair(torch.zeros(1, 2), torch.zeros(1, 3), torch.tensor([0.5]))
    with pytest.raises(InputError, match=r"times must lie in \[0, 1\]"):
        flow_pair(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([math.nan]))
