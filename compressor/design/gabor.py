"""Gabor filters: waves under a Gaussian."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from compressor.design.channel_mixes import ChannelMixes, equal
from compressor.design.initialiser import Initialiser
from compressor.design.layer import Part
from compressor.design.noise import GAIN_OF_RELU, check_gain
from compressor.errors import InputError

__all__ = ["Gabor", "gabor_kernel"]

# σ / λ of a bandwidth of one octave: √(ln 2 / 2) / π * (2 + 1) / (2 - 1).
_ONE_OCTAVE = 3 * math.sqrt(math.log(2) / 2) / math.pi
_SHORTEST_PX = 2.0  # the wave of the highest frequency that pixels hold


def gabor_kernel(
    kernel_size: tuple[int, ...],
    *,
    wavelength_px: float,
    orientation_rad: float = 0.0,
    phase_rad: float = 0.0,
    sigma_px: float | None = None,
    aspect: float = 0.5,
) -> Tensor:
    """exp(-(x'² + γ² y'²) / 2σ²) cos(2π x'/λ + ψ) around the middle of a kernel, in float64.

    Of two dimensions [rows, columns] x' = x cos θ + y sin θ, y' = y cos θ - x sin θ with x along columns; of
    one, x' = x. λ is `wavelength_px`, θ `orientation_rad`, ψ `phase_rad`, γ `aspect`, σ `sigma_px`, by
    default 0.56 λ, a bandwidth of one octave. Nothing is subtracted.

    *Source: J. Daugman, 1985, Uncertainty relation for resolution in space, spatial frequency, and
    orientation; parameters as N. Petkov, P. Kruizinga, 1997, Computational models of visual neurons.*

    >>> gabor_kernel((1, 3), wavelength_px=4.0, sigma_px=1.0).round(decimals=3)
    tensor([[0., 1., 0.]], dtype=torch.float64)
    """
    if len(kernel_size) not in (1, 2):
        raise InputError(
            f"Gabor kernels have one or two dimensions, got {len(kernel_size)}; dct_kernels takes any number"
        )
    sigma = _ONE_OCTAVE * wavelength_px if sigma_px is None else sigma_px
    grids = [torch.arange(size, dtype=torch.float64) - (size - 1) / 2 for size in kernel_size]
    if len(grids) == 1:
        along, across = grids[0], torch.zeros_like(grids[0])
    else:
        y, x = torch.meshgrid(*grids, indexing="ij")
        cos, sin = math.cos(orientation_rad), math.sin(orientation_rad)
        along, across = x * cos + y * sin, y * cos - x * sin
    envelope = torch.exp(-(along.square() + aspect**2 * across.square()) / (2 * sigma**2))
    return envelope * torch.cos(2 * math.pi * along / wavelength_px + phase_rad)


@dataclass(frozen=True)
class Gabor(Initialiser):
    """Gabor filters of evenly spread orientations, even and odd, less their mean, each of norm `gain`.

    `wavelengths_px` are those of the waves; by default the length of the kernel (its shortest side), and half
    of it where that is 2.5 pixels or more. There are as many `orientations` as the layer has filters for,
    unless they are given; then too many filters raise. `channels` says how kernels are spread over input
    channels (`equal`: brightness). The order is by mix of channels, wavelength, phase, orientation.
    Nothing is drawn at random.

    *Source: as `gabor_kernel`.* Departure: the mean is taken away, so that even filters do not read
    brightness.

    Raises InputError for kernels that are shorter than 3 along an axis, or have other than one or two.

    >>> from compressor.design import initialise_
    >>> conv = torch.nn.Conv2d(3, 16, 7)
    >>> _ = initialise_(conv, Gabor())
    >>> float(conv.weight.detach().sum(dim=(1, 2, 3)).abs().max()) < 1e-5
    True
    """

    gain: float = GAIN_OF_RELU
    _: KW_ONLY
    wavelengths_px: tuple[float, ...] | None = None
    orientations: int | None = None
    aspect: float = 0.5
    channels: ChannelMixes = equal

    def __post_init__(self) -> None:
        check_gain("Gabor", self.gain)
        if self.wavelengths_px is not None and not all(w >= _SHORTEST_PX for w in self.wavelengths_px):
            raise InputError(
                f"Gabor: waves are {_SHORTEST_PX:g} pixels long or longer, got {self.wavelengths_px}"
            )
        if self.orientations is not None and self.orientations < 1:
            raise InputError(f"Gabor: orientations must be at least 1, got {self.orientations}")

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The first n of the grid of mixes, wavelengths, phases and orientations."""
        size = part.kernel_size
        if len(size) not in (1, 2) or min(size) < 3:
            raise InputError(
                f"Gabor: {part.layer.name} has kernels of {' x '.join(map(str, size)) or 'no extent'}, "
                "expected one or two axes of 3 or more; name the layers with such kernels, or draw with "
                "DCT()"
            )
        waves = self.wavelengths_px or _waves(min(size))
        mixes = self.channels(part.channels)
        angles = self._orientations(part, len(mixes) * len(waves) * 2)
        kernels = torch.stack(
            [
                gabor_kernel(
                    size,
                    wavelength_px=wave,
                    orientation_rad=math.pi * turn / angles,
                    phase_rad=phase,
                    aspect=self.aspect,
                )
                for wave in waves
                for phase in (0.0, math.pi / 2)
                for turn in range(angles)
            ]
        )
        kernels -= kernels.flatten(1).mean(dim=1).reshape(-1, *[1] * len(size))
        filters = torch.einsum("mi,f...->mfi...", mixes, kernels).flatten(0, 1)[: part.count]
        return part.to_gain(filters.to(part.filters), self.gain)

    def _orientations(self, part: Part, per_orientation: int) -> int:
        """How many there are; a row of samples has one."""
        needed = -(-part.count // per_orientation)
        there = 1 if len(part.kernel_size) == 1 else self.orientations
        if there is not None and needed > there:
            raise InputError(
                f"Gabor: {part.layer.name} takes {part.count} filters, and there are "
                f"{there * per_orientation}; give more wavelengths_px, orientations or mixes of channels "
                "(channels=cosines)"
            )
        return needed if there is None else there


def _waves(length: int) -> tuple[float, ...]:
    return (float(length), length / 2) if length >= 5 else (float(length),)
