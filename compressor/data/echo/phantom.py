"""A phantom of an apical view: a sector of Rayleigh speckle with a bright ring that contracts and relaxes.

It stands in for echocardiograms in tests and quick runs. Tissue moves as one affine field, so that the
strain of any line of material points is known in closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.data.echo.sequences import Sequences
from compressor.errors import InputError

__all__ = ["Phantom", "phantoms"]


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """The options of `phantoms`: height and width in pixels, frames of one heart beat, and how it moves.

    The ring lies about `centre` (row, column) with semi-axes `axes` (rows, columns) and `wall` thickness, all
    as parts of the height. Every distance from the centre shrinks by the factor `stretch(t)`, down to
    1 - `contraction`.

    >>> Phantom(frames=4, contraction=0.2).stretch()
    tensor([1.0000, 0.9000, 0.8000, 0.9000], dtype=torch.float64)
    """

    size: int = 64
    frames: int = 16
    contraction: float = 0.2
    centre: tuple[float, float] = (0.5, 0.5)
    axes: tuple[float, float] = (0.28, 0.17)
    wall: float = 0.09

    def __post_init__(self) -> None:
        if self.size < 16 or self.frames < 1:
            raise InputError(
                f"Phantom: at least 16 pixels and one frame are needed, got {self.size} and {self.frames}"
            )
        if not 0 <= self.contraction < 0.5:
            raise InputError(f"Phantom: contraction must be from 0 to below 0.5, got {self.contraction!r}")

    def stretch(self) -> Tensor:
        """Lengths relative to the first frame, float64 [T]; the Lagrangian strain is this less 1."""
        phase = torch.arange(self.frames, dtype=torch.float64) / self.frames
        return 1 - self.contraction * (math.pi * phase).sin().square()


def phantoms(count: int, options: Phantom | None = None, *, seed: int = 0) -> Sequences:
    """`count` clean sequences, float32 from 0 to 1, that differ in speckle, and in the size of the ring.

    Speckle is the magnitude of complex Gaussian noise, blurred by the point spread of a pixel or so, and
    is carried along by the tissue.

    >>> phantoms(2, Phantom(size=32, frames=4))
    Sequences(2 of 32x32, 4 frames, vendor 0, vendor 1)
    """
    if count < 1:
        raise InputError(f"phantoms: count must be at least 1, got {count}")
    chosen = Phantom() if options is None else options
    generator = torch.Generator().manual_seed(seed)
    frames = torch.stack([_one(chosen, generator) for _ in range(count)])
    names = tuple(f"phantom {index}" for index in range(count))
    return Sequences(frames, names, tuple(f"vendor {index}" for index in range(count)))


def _one(options: Phantom, generator: torch.Generator) -> Tensor:
    """One sequence [1, H, W, T]."""
    size = options.size
    vary = 1 + 0.2 * (torch.rand(3, generator=generator) - 0.5)
    place = (torch.arange(size) + 0.5) / size
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    sector = _sector(rows, columns)
    speckle = _speckle(2 * size, generator)
    (row, column), (tall, wide) = options.centre, options.axes
    images = []
    for stretch in options.stretch().float():
        down, right = (rows - row) / stretch, (columns - column) / stretch  # where the tissue was at first
        radius = ((down / (tall * vary[0])).square() + (right / (wide * vary[1])).square()).sqrt()
        away = (radius - 1) * wide / (options.wall * vary[2])
        bright = 0.12 + 0.28 * (-away.square()).exp() - 0.08 * torch.sigmoid(-6 * away - 6)
        grid = torch.stack((right, down), -1)[None]
        moved = F.grid_sample(speckle, grid * 2, align_corners=False, padding_mode="reflection")[0, 0]
        images.append((bright * moved * sector).clamp(0, 1))
    return torch.stack(images, -1)[None]


def _sector(rows: Tensor, columns: Tensor) -> Tensor:
    """A sector of 74 degrees whose apex is in the middle of the upper edge."""
    down, right = rows - 0.02, columns - 0.5
    return (right.abs() <= down * math.tan(math.radians(37))) & (down.square() + right.square() <= 0.94**2)


def _speckle(size: int, generator: torch.Generator) -> Tensor:
    """Rayleigh speckle of mean 1, [1, 1, size, size]."""
    noise = torch.randn(2, 1, size, size, generator=generator)
    steps = torch.arange(-4, 5.0)
    kernel = (-(steps / 1.6).square() / 2).exp()
    blurred = F.conv2d(noise, (kernel[:, None] * kernel)[None, None], padding=4)
    magnitude = blurred.square().sum(0, keepdim=True).sqrt()
    return magnitude / magnitude.mean()
