"""Posteriors of the mixture against quadrature, Bayes' rule by counting, and twice the smallest error."""

from __future__ import annotations

import math

import pytest
import torch

from compressor.data import GaussianMixture
from compressor.errors import InputError


def by_quadrature(
    mixture: GaussianMixture, y: list[float], noise: float, observed: list[int]
) -> torch.Tensor:
    """E[X | Y = y] in the plane from the joint density on a grid."""
    axis = torch.linspace(-4, 4, 801, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    means = torch.tensor(mixture.means, dtype=torch.float64)
    prior = torch.exp(-torch.cdist(points, means).square() / (2 * mixture.std**2)).sum(1)
    error = (points[:, observed] - torch.tensor(y, dtype=torch.float64)).square().sum(1)
    weights = prior * torch.exp(-error / (2 * noise**2))
    return (weights[:, None] * points).sum(0) / weights.sum()


@pytest.mark.parametrize(
    ("y", "noise", "observed"), [([0.4, -1.1], 0.8, [0, 1]), ([0.9], 0.5, [0]), ([-0.3], 0.2, [1])]
)
def test_the_posterior_mean_by_quadrature(y: list[float], noise: float, observed: list[int]) -> None:
    mixture = GaussianMixture.ring()
    found = mixture.posterior_mean(torch.tensor([y], dtype=torch.float64), noise=noise, observed=observed)
    assert torch.allclose(found[0], by_quadrature(mixture, y, noise, observed), atol=1e-6)


@pytest.mark.parametrize(("noise", "observed"), [(0.8, [0, 1]), (0.1, [0])])
def test_sampling_the_posterior_costs_twice_the_smallest_error(noise: float, observed: list[int]) -> None:
    mixture, generator = GaussianMixture.ring(), torch.Generator().manual_seed(0)
    x = mixture.sample(100_000, generator=generator)
    seen = x[:, observed]
    y = seen + noise * torch.randn(seen.shape, generator=generator)
    smallest = (mixture.posterior_mean(y, noise=noise, observed=observed) - x).square().sum(1).mean()
    drawn = mixture.posterior_sample(y, noise=noise, observed=observed, generator=generator)
    assert float((drawn - x).square().sum(1).mean()) == pytest.approx(2 * float(smallest), rel=0.02)


def test_samples_of_posteriors_are_distributed_like_the_points() -> None:
    mixture, generator = GaussianMixture.ring(), torch.Generator().manual_seed(1)
    x = mixture.sample(50_000, generator=generator)
    y = x[:, :1] + 0.5 * torch.randn(len(x), 1, generator=generator)
    drawn = mixture.posterior_sample(y, noise=0.5, observed=[0], generator=generator)
    centres = torch.tensor(mixture.means)
    counts = torch.cdist(drawn, centres).argmin(1).bincount(minlength=8)
    assert (counts - len(x) / 8).abs().max() < 6 * math.sqrt(len(x) / 8)
    assert float(torch.cdist(drawn, centres).min(1).values.square().mean()) == pytest.approx(
        2 * 0.15**2, rel=0.02
    )


def test_the_ring_is_where_it_should_be() -> None:
    ring = GaussianMixture.ring(count=4, radius=3.0, std=0.1, turn=0.5)
    first = ring.means[0]
    assert first == pytest.approx((3 * math.cos(0.5), 3 * math.sin(0.5)))
    assert all(math.hypot(*mean) == pytest.approx(3) for mean in ring.means)
    assert len(set(ring.means)) == 4


def test_what_does_not_fit_is_named() -> None:
    mixture = GaussianMixture.ring()
    with pytest.raises(InputError, match=r"expected y \[N, 2\] for the coordinates \[0, 1\] of 2"):
        mixture.posterior_mean(torch.zeros(3, 1), noise=0.1, observed=[0, 1])
    with pytest.raises(InputError, match=r"coordinates \[2\] of 2"):
        mixture.posterior_mean(torch.zeros(3, 1), noise=0.1, observed=[2])
    with pytest.raises(InputError, match="noise > 0"):
        mixture.posterior_mean(torch.zeros(3, 1), noise=0.0, observed=[0])
    with pytest.raises(InputError, match="means of one length"):
        GaussianMixture(((0.0,), (0.0, 1.0)), std=0.1)
    with pytest.raises(InputError, match="std > 0"):
        GaussianMixture(((0.0,),), std=0.0)


def test_a_coordinate_that_is_named_twice_is_not_seen_twice() -> None:
    two = GaussianMixture(((-1.0, 0.0), (1.0, 0.0)), std=0.1)
    with pytest.raises(InputError, match=r"coordinates \[0, 0\] of 2, each once"):
        two.posterior_mean(torch.zeros(1, 2), noise=0.1, observed=(0, 0))
