"""Posterior-mean rectified flow: a restoration as close to the truth as samples from its distribution can be.

Source: G. Ohayon, T. Michaeli, M. Elad, 2025, "Posterior-Mean Rectified Flow: Towards Minimum MSE
Photo-Realistic Image Restoration", ICLR, arXiv 2410.00418, algorithm 1 and section 4; settings as in the
released code. Symbols: y the observation, x the image, X* = E[X | Y] its posterior mean, z_t the state of
the flow, v its velocity, K the number of Euler steps, σ_s the noise of the source.

1. `PosteriorMean(network)` is trained with the squared error on (y, x), the clip inside the loss.
2. The velocity is trained on `Restorer.pair(y, x)`: z_t = t x + (1 − t) z_0 against x − z_0, t stratified.
3. `Restorer` solves dz = v(z, t) dt from z_0 in K Euler steps at t = i/K, and clips at the end.

PMRF starts at z_0 = X* + σ_s ε; the baselines differ in the `Source` alone. Both trainings are
`fine_tune_` with `torch.nn.functional.mse_loss`.

Departures: the average of the weights (`Recipe(ema=...)`) is what is validated and kept, where the released
code validates the raw weights, and its decay rises, min(decay, (1 + n)/(10 + n)); the first stage is run in
the precision of its weights; noise is an argument of `forward`, so that an exported restorer is a function.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributed, nn

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.pmrf_sources import Source
from compressor.models.rectified_flow import Velocity, euler, flow_pair, stratified_times

__all__ = ["PosteriorMean", "Restorer"]

Limits = tuple[float, float]


class PosteriorMean(nn.Module):
    """A network whose output is clipped to `limits`, trained with the squared error: it estimates E[X | Y].

    The clip is part of the training as published, so that values beyond the limits get no gradient;
    `clip_in_training=False` clips in eval mode only. `limits=None` never clips.

    >>> PosteriorMean(nn.Identity())(torch.tensor([[-0.5, 0.25, 1.5]]))
    tensor([[0.0000, 0.2500, 1.0000]])
    """

    def __init__(
        self, network: nn.Module, *, limits: Limits | None = (0.0, 1.0), clip_in_training: bool = True
    ) -> None:
        super().__init__()
        self.network, self.limits, self.clip_in_training = network, limits, clip_in_training

    def forward(self, y: Tensor) -> Tensor:
        estimate: Tensor = self.network(y)
        if self.limits is None or (self.training and not self.clip_in_training):
            return estimate
        return estimate.clamp(*self.limits)


class Restorer(nn.Module):
    """Both stages as one module: the start from the source, K Euler steps of the velocity, a clip.

    `velocity(z, t)` takes the state [N, C, ...] (the condition behind it along axis 1) and times [N];
    `channels` is C. `posterior_mean` is needed where the source uses it; it is the first stage, done with
    training, and stays in eval mode. `limits=None` is for values without limits; then nothing is clipped.

    >>> from compressor.models import FromObservation
    >>> restorer = Restorer(lambda z, t: torch.zeros_like(z), FromObservation(noise=0.0), channels=1, steps=5)
    >>> restorer.restore(torch.full((1, 1, 2, 2), 0.5)).unique()
    tensor([0.5000])
    """

    def __init__(
        self,
        velocity: Velocity,
        source: Source,
        *,
        channels: int,
        steps: int = 25,
        posterior_mean: nn.Module | None = None,
        limits: Limits | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        require_positive("Restorer", channels=channels, steps=steps)
        if source.uses_posterior_mean and posterior_mean is None:
            raise InputError(
                f"Restorer: {source} needs the first stage: posterior_mean=PosteriorMean(network)"
            )
        self.velocity, self.source, self.limits = velocity, source, limits
        self.channels, self.steps = channels, steps
        self.posterior_mean = posterior_mean if source.uses_posterior_mean else None
        self.train(self.training)

    def train(self, mode: bool = True) -> Restorer:
        """Switch the mode of the velocity; the first stage stays in eval mode."""
        super().train(mode)
        if self.posterior_mean is not None:
            self.posterior_mean.eval()
        return self

    def forward(self, y: Tensor, noise: Tensor) -> Tensor:
        """The images [N, C, ...] restored from `y`; `noise` is standard normal in their shape.

        A function of its inputs, for captures and exports; values are not checked here, but in `restore`.
        """
        mean = None if self.posterior_mean is None else self.posterior_mean(y)
        start, condition = self.source.start(y, mean, noise), self.source.condition(y, mean)
        if start.shape[1] != self.channels:
            raise InputError(
                f"Restorer: {self.source} starts in {start.shape[1]} channels, expected {self.channels}; y "
                f"is {list(y.shape)}, the noise {list(noise.shape)}"
            )
        end = euler(self.velocity, start, steps=self.steps, condition=condition)
        return end if self.limits is None else end.clamp(*self.limits)

    @torch.no_grad()
    def restore(self, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The images [N, C, ...] restored from observations, with fresh noise.

        Raises InputError for values that are not finite, or beyond the limits.
        """
        self._check("y", y)
        self.train(self.training)  # the first stage may have been trained since
        restored: Tensor = self(y, self._noise(y, generator))
        return restored

    @torch.no_grad()
    def pair(self, y: Tensor, x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """What the velocity is trained on: ((z_t, t), x − z_0), with fresh noise and times.

        For `fine_tune_(velocity, Mapped(batches, restorer.pair), mse_loss, recipe)`, with `batches` of
        (y, x). Noise and times come from torch's global generators; times are stratified over the batch of
        all processes. A condition lies behind z_t along axis 1.

        Raises InputError for shapes that do not fit, and values that are not finite or beyond the limits.
        """
        y, x = (tensor.to(self._device(tensor)) for tensor in (y, x))
        self._check("y", y)
        self._check("x", x)
        if x.shape[0] != y.shape[0] or x.shape[1] != self.channels or x.shape[2:] != y.shape[2:]:
            raise InputError(
                f"Restorer.pair: y {list(y.shape)} needs x {[len(y), self.channels, *y.shape[2:]]}, got "
                f"{list(x.shape)}; bring y to the size of x first"
            )
        self.train(self.training)  # the first stage may have been trained since
        mean = None if self.posterior_mean is None else self.posterior_mean(y)
        start, condition = self.source.start(y, mean, torch.randn_like(x)), self.source.condition(y, mean)
        running = distributed.is_available() and distributed.is_initialized()
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if running else (0, 1)
        t = stratified_times(len(x), rank=rank, world=world).to(x)
        state, target = flow_pair(x, start, t)
        return (state if condition is None else torch.cat((state, condition), 1), t), target

    def extra_repr(self) -> str:
        return f"source={self.source}, channels={self.channels}, steps={self.steps}, limits={self.limits}"

    def _noise(self, y: Tensor, generator: torch.Generator | None) -> Tensor:
        shape = (y.shape[0], self.channels, *y.shape[2:])
        device = y.device if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=device, dtype=y.dtype).to(y.device)

    def _device(self, tensor: Tensor) -> torch.device:
        return next((parameter.device for parameter in self.parameters()), tensor.device)

    def _check(self, name: str, values: Tensor) -> None:
        """Raise InputError for what is no image within the limits."""
        if not values.is_floating_point() or values.dim() < 2:
            raise InputError(
                f"Restorer: {name} must be floats [N, C, ...], got {values.dtype} {list(values.shape)}"
            )
        low, high = (-math.inf, math.inf) if self.limits is None else self.limits
        if values.numel() and not (
            bool(torch.isfinite(values).all()) and low <= values.min() and values.max() <= high
        ):
            raise InputError(
                f"Restorer: {name} must be finite and within {self.limits}, got {values.min():.4g} to "
                f"{values.max():.4g}; divide 8-bit images by 255, and look for NaN"
            )
