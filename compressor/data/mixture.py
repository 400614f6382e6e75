"""A mixture of round Gaussians whose posteriors are known: the closed form to hold restorations against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["GaussianMixture"]


@dataclass(frozen=True)
class GaussianMixture:
    """Equally likely round Gaussians of standard deviation `std` about `means` (K points of D numbers).

    Observed are some of the coordinates, with noise: y = x[observed] + σ n. Given y, component k has the
    weight ∝ N(y; m_k, std² + σ²), and within it the coordinates are independent: those observed have the
    variance s² = 1/(1/std² + 1/σ²) about s² (m_k/std² + y/σ²), the others that of the component.

    >>> two = GaussianMixture(((-1.0,), (1.0,)), std=0.1)
    >>> two.posterior_mean(torch.tensor([[0.0], [1.0]]), noise=0.1, observed=(0,)).round(decimals=4)
    tensor([[0.],
            [1.]])
    """

    means: tuple[tuple[float, ...], ...]
    std: float

    def __post_init__(self) -> None:
        if not self.means or len({len(mean) for mean in self.means}) != 1 or not self.std > 0:
            raise InputError(
                f"GaussianMixture: expected means of one length and std > 0, got {self.means}, std {self.std}"
            )

    @classmethod
    def ring(
        cls, *, count: int = 8, radius: float = 2.0, std: float = 0.15, turn: float = 0.2
    ) -> GaussianMixture:
        """Gaussians in a circle, the first at the angle `turn` (radians)."""
        angles = [turn + 2 * math.pi * index / count for index in range(count)]
        return cls(tuple((radius * math.cos(angle), radius * math.sin(angle)) for angle in angles), std)

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Points [count, D]."""
        chosen = torch.randint(len(self.means), (count,), generator=generator)
        centre = torch.tensor(self.means)[chosen]
        return centre + self.std * torch.randn(centre.shape, generator=generator)

    def posterior_mean(self, y: Tensor, *, noise: float, observed: Sequence[int]) -> Tensor:
        """E[X | Y = y] as [N, D], of observations [N, len(observed)]."""
        weights, centres, _ = self._posterior(y, noise, observed)
        return torch.einsum("nk,nkd->nd", weights, centres)

    def posterior_sample(
        self, y: Tensor, *, noise: float, observed: Sequence[int], generator: torch.Generator | None = None
    ) -> Tensor:
        """One draw [N, D] from p(x | y) for each observation."""
        weights, centres, spread = self._posterior(y, noise, observed)
        chosen = torch.multinomial(weights, 1, generator=generator)
        centre = centres.gather(1, chosen[:, :, None].expand(-1, -1, centres.shape[2])).squeeze(1)
        return centre + spread * torch.randn(centre.shape, generator=generator).to(centre)

    def _posterior(self, y: Tensor, noise: float, observed: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Weights [N, K], centres [N, K, D] and standard deviations [D] of the components given y."""
        dims = list(observed)
        means = torch.tensor(self.means).to(y)
        if (
            y.dim() != 2
            or y.shape[1] != len(dims)
            or len(set(dims)) < len(dims)
            or not set(dims) <= set(range(means.shape[1]))
            or not noise > 0
        ):
            raise InputError(
                f"GaussianMixture: expected y [N, {len(dims)}] for the coordinates {dims} of "
                f"{means.shape[1]}, each once, and noise > 0, got y {list(y.shape)} and noise {noise}"
            )
        seen = means[:, dims]
        squares = (y[:, None] - seen).square().sum(2)
        weights = torch.softmax(-squares / (2 * (self.std**2 + noise**2)), 1)
        gain = self.std**2 / (self.std**2 + noise**2)
        centres = means.repeat(len(y), 1, 1)
        centres[:, :, dims] = seen + gain * (y[:, None] - seen)
        spread = torch.full_like(means[0], self.std)
        spread[dims] = self.std * math.sqrt(1 - gain)
        return weights, centres, spread
