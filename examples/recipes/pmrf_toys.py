"""PMRF where the truth is known: a mixture of Gaussians in the plane, and the digits of scikit-learn.

    python examples/recipes/pmrf_toys.py --out runs/toys

Every estimator of G. Ohayon et al., 2025 (arXiv 2410.00418) at one budget: distortion against distance to
the distribution of the clean data. The mixture's posterior mean and posterior samples are exact, so that
what the flows reach can be held against them: sampling costs twice the smallest error, PMRF much less
than that. Some five minutes on one CPU core; the same command again goes on where it was.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import results
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, silu

from compressor.data import GaussianMixture
from compressor.evaluation import energy_distance, features_of, frechet_distance
from compressor.models import (
    FromObservation,
    FromPosteriorMean,
    GivenObservation,
    GivenPosteriorMean,
    PosteriorMean,
    Restorer,
    Source,
)
from compressor.models.restoration_unet import time_features
from compressor.training import Mapped, Recipe, fine_tune_

EPOCHS = 5
Row = dict[str, object]


@dataclass(frozen=True)
class Run:
    """Where the run is kept, its seed, and how long everything is trained and judged."""

    out: Path
    seed: int
    steps: int
    points: int

    def train(self, name: str, model: nn.Module, batches: Mapped, loss: object, *, ema: float | None) -> None:
        """One training in place; its file is `out/name.pt`."""
        recipe = Recipe(
            epochs=EPOCHS,
            lr=1e-3,
            weight_decay=1e-2,
            optimizer=partial(torch.optim.AdamW, betas=(0.9, 0.95)),
            ema=ema,
            seed=self.seed,
        )
        fine_tune_(model, batches, loss, recipe, checkpoint=self.out / f"{_plain(name)}.pt")  # type: ignore[arg-type]


def _plain(name: str) -> str:
    """A file's name of letters, digits and dashes."""
    return re.sub("[^A-Za-z0-9]+", "-", name.replace("*", " mean")).strip("-").lower()


class Velocity(nn.Module):
    """Three layers of SiLU on the state and nine features of the time."""

    def __init__(self, inputs: int, outputs: int, width: int = 128) -> None:
        super().__init__()
        sizes = (inputs + 9, width, width, width)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.head = nn.Linear(width, outputs)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        inner = torch.cat((z, time_features(t)), 1)
        for layer in self.hidden:
            inner = silu(layer(inner))
        out: Tensor = self.head(inner)
        return out


class Residual(nn.Module):
    """Two residual layers on vectors; with times [N], their features are put behind the vector."""

    def __init__(self, inputs: int, outputs: int, *, timed: bool, width: int = 384) -> None:
        super().__init__()
        self.first = nn.Linear(inputs + (9 if timed else 0), width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.head = nn.Linear(width, outputs)

    def forward(self, z: Tensor, t: Tensor | None = None) -> Tensor:
        inner = self.first(z if t is None else torch.cat((z, time_features(t)), 1))
        for block in self.blocks:
            inner = inner + block(silu(inner))
        out: Tensor = self.head(silu(inner))
        return out


@dataclass(frozen=True)
class Task:
    """What is seen of the mixture's points: some coordinates, with noise."""

    name: str
    observed: tuple[int, ...]
    noise: float
    mixture = GaussianMixture.ring()

    def pair(self, count: int) -> tuple[Tensor, Tensor]:
        """Observations [count, 2], zero where nothing is seen, and the points."""
        x = self.mixture.sample(count)
        y = torch.zeros_like(x)
        for axis in self.observed:
            y[:, axis] = x[:, axis] + self.noise * torch.randn(count)
        return y, x

    def mean(self, y: Tensor) -> Tensor:
        """The exact posterior mean."""
        return self.mixture.posterior_mean(
            y[:, list(self.observed)], noise=self.noise, observed=self.observed
        )

    def sample(self, y: Tensor) -> Tensor:
        """Exact samples of the posterior."""
        return self.mixture.posterior_sample(
            y[:, list(self.observed)], noise=self.noise, observed=self.observed
        )


class Exact(nn.Module):
    """The exact posterior mean in place of a trained one."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, y: Tensor) -> Tensor:
        return self.task.mean(y)


class Draws:
    """So many batches of 256 fresh pairs of a task."""

    def __init__(self, task: Task, batches: int) -> None:
        self.task, self.batches = task, batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.task.pair(256) for _ in range(self.batches))


def sources(*noises: float) -> dict[str, Source]:
    """PMRF at some σ_s, and the baselines."""
    ours: dict[str, Source] = {f"PMRF σ_s={noise}": FromPosteriorMean(noise=noise) for noise in noises}
    return ours | {
        "flow conditioned on Y": GivenObservation(),
        "flow conditioned on X*": GivenPosteriorMean(),
        f"flow from Y σ_s={noises[0]}": FromObservation(noise=noises[0]),
    }


def mixture(run: Run, task: Task) -> list[Row]:
    """The rows of one task on the mixture."""
    torch.manual_seed(run.seed + 1)
    y, x = task.pair(run.points)
    fresh = task.mixture.sample(run.points)

    def row(estimator: str, found: Tensor, steps: int | None = None) -> Row:
        error = float((found - x).square().sum(1).mean())
        shown = "" if steps is None else steps
        return {
            "task": task.name,
            "estimator": estimator,
            "K": shown,
            "MSE": error,
            "energy distance": energy_distance(found, fresh),
        }

    rows = [row("posterior mean, exact", task.mean(y)), row("posterior sampling, exact", task.sample(y))]
    for name, source in sources(0.1, 0.0).items():
        torch.manual_seed(run.seed)
        velocity = Velocity(2 if source.condition(y, y) is None else 4, 2)
        flow = Restorer(velocity, source, channels=2, posterior_mean=Exact(task), limits=None)
        batches = Mapped(Draws(task, run.steps // EPOCHS), flow.pair)
        run.train(f"{task.name}-{name}", velocity, batches, mse_loss, ema=0.995)
        for flow.steps in (1, 5, 25):
            rows.append(row(name, flow.restore(y), flow.steps))
    return rows


def digits(run: Run) -> list[Row]:
    """The rows of the digits: 8x8 pixels in [0, 1] with noise of σ = 0.5."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.data, dtype=torch.float32) / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, validation = order[:1400], order[1400:]
    times = max(1, run.points // 1000)
    x, truth = images[validation].repeat(times, 1), labels[validation].repeat(times)
    y = x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(run.seed + 1))

    class Draws:
        """So many batches of 256 digits with their labels."""

        def __len__(self) -> int:
            return run.steps // EPOCHS

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for _ in range(len(self)):
                chosen = train[torch.randint(len(train), (256,))]
                yield images[chosen], labels[chosen]

    torch.manual_seed(run.seed)
    features = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
    classifier = nn.Sequential(features, nn.Linear(32, 10))
    run.train("digits-classifier", classifier, Mapped(Draws(), lambda a, b: (a, b)), cross_entropy, ema=None)
    clean = features_of(features, images[train])

    def row(estimator: str, found: Tensor, steps: int | None = None) -> Row:
        with torch.no_grad():
            right = (classifier(found).argmax(1) == truth).double().mean()
        return {
            "estimator": estimator,
            "K": "" if steps is None else steps,
            "MSE": float((found - x).square().mean()),
            "Fréchet distance": frechet_distance(features_of(features, found), clean),
            "read correctly": float(right),
        }

    def degraded(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + 0.5 * torch.randn_like(a), a

    noisy = Mapped(Draws(), degraded)
    first = PosteriorMean(Residual(64, 64, timed=False))
    run.train("digits-posterior mean", first, noisy, mse_loss, ema=0.995)
    first.eval()
    with torch.no_grad():
        rows = [row("observation", y), row("clean digits", x), row("posterior mean", first(y))]
    for name, source in sources(0.025, 0.1).items():
        torch.manual_seed(run.seed)
        velocity = Residual(64 if source.condition(y, y) is None else 128, 64, timed=True)
        flow = Restorer(velocity, source, channels=64, posterior_mean=first, limits=None)
        run.train(f"digits-{name}", velocity, Mapped(noisy, flow.pair), mse_loss, ema=0.995)
        for flow.steps in (1, 5, 25, 100):
            rows.append(row(name, flow.restore(y), flow.steps))
    return rows


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; start again to go on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500, help="of each training, in batches of 256")
    parser.add_argument("--quick", action="store_true", help="short trainings: does everything work here?")
    options = parser.parse_args()
    steps, points = (EPOCHS, 400) if options.quick else (options.steps, 4000)
    run = Run(options.out, options.seed, steps, points)
    run.out.mkdir(parents=True, exist_ok=True)
    tasks = (Task("denoise σ=0.8", (0, 1), 0.8), Task("x₂ missing", (0,), 0.1))
    facts = {"seed": run.seed, "steps": run.steps, "points": run.points}
    plane = [row for task in tasks for row in mixture(run, task)]
    notes = [
        "MSE summed over both coordinates; energy distance to as many fresh points, about 0.001 where the "
        "distributions are the same."
    ]
    title = "PMRF on a mixture of eight Gaussians"
    print(results.write(run.out, title, plane, notes=notes, facts=facts, name="mixture"))
    notes = ["Fréchet distance of 32 features of a small classifier to those of the clean training digits."]
    title = "PMRF on digits, σ = 0.5"
    print(results.write(run.out, title, digits(run), notes=notes, facts=facts, name="digits"))


if __name__ == "__main__":
    main()
