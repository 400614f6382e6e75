"""Where a flow of images starts: PMRF's source, and those of the baselines it is compared with.

Source: G. Ohayon, T. Michaeli, M. Elad, 2025, arXiv 2410.00418, section 4. Symbols: see
`compressor.models.pmrf`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from compressor.errors import InputError

__all__ = ["FromObservation", "FromPosteriorMean", "GivenObservation", "GivenPosteriorMean", "Source"]


class Source(ABC):
    """Where the flow starts, and what the velocity is told besides its state."""

    uses_posterior_mean: bool

    @abstractmethod
    def start(self, y: Tensor, mean: Tensor | None, noise: Tensor) -> Tensor:
        """The start z_0 in the shape of `noise`, which is standard normal."""

    def condition(self, y: Tensor, mean: Tensor | None) -> Tensor | None:
        """What is put behind the state along axis 1; None for nothing."""
        return None


@dataclass(frozen=True)
class FromPosteriorMean(Source):
    """PMRF: z_0 = X* + σ_s ε.

    σ_s > 0 gives the source as many dimensions as the images have, so that the flow exists; it costs
    some squared error. Published: 0.025 for denoising, else 0.1.

    >>> import torch
    >>> FromPosteriorMean(noise=0.5).start(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1))
    tensor([[1.5000]])
    """

    noise: float = 0.1
    uses_posterior_mean = True

    def __post_init__(self) -> None:
        _check_noise(self)

    def start(self, y: Tensor, mean: Tensor | None, noise: Tensor) -> Tensor:
        assert mean is not None
        return mean + self.noise * noise


@dataclass(frozen=True)
class FromObservation(Source):
    """A baseline: z_0 = y + σ_s ε, a grey y in every channel.

    >>> import torch
    >>> FromObservation(noise=0.0).start(torch.ones(1, 1, 1, 2), None, torch.zeros(1, 3, 1, 2)).shape
    torch.Size([1, 3, 1, 2])
    """

    noise: float = 0.1
    uses_posterior_mean = False

    def __post_init__(self) -> None:
        _check_noise(self)

    def start(self, y: Tensor, mean: Tensor | None, noise: Tensor) -> Tensor:
        return y + self.noise * noise


@dataclass(frozen=True)
class GivenObservation(Source):
    """A baseline that samples the posterior: z_0 = ε, and the velocity is told y.

    >>> import torch
    >>> GivenObservation().condition(torch.ones(1, 1), None)
    tensor([[1.]])
    """

    uses_posterior_mean = False

    def start(self, y: Tensor, mean: Tensor | None, noise: Tensor) -> Tensor:
        return noise

    def condition(self, y: Tensor, mean: Tensor | None) -> Tensor | None:
        return y


@dataclass(frozen=True)
class GivenPosteriorMean(Source):
    """A baseline that samples the posterior given X*: z_0 = ε, and the velocity is told X*.

    >>> import torch
    >>> GivenPosteriorMean().condition(torch.ones(1, 1), torch.zeros(1, 1))
    tensor([[0.]])
    """

    uses_posterior_mean = True

    def start(self, y: Tensor, mean: Tensor | None, noise: Tensor) -> Tensor:
        return noise

    def condition(self, y: Tensor, mean: Tensor | None) -> Tensor | None:
        return mean


def _check_noise(source: FromPosteriorMean | FromObservation) -> None:
    if not (math.isfinite(source.noise) and source.noise >= 0):
        raise InputError(
            f"{type(source).__name__}: noise must be at least 0 and finite, got {source.noise!r}"
        )
