"""Filters at right angles: to each other, or also to those that stay."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.design.initialiser import Initialiser
from compressor.design.layer import Part
from compressor.design.noise import GAIN_OF_RELU, check_gain
from compressor.errors import InputError
from compressor.filters.bank import require_finite

__all__ = ["Orthogonal", "ResidualOrthogonal"]


@dataclass(frozen=True)
class Orthogonal(Initialiser):
    """Filters as the rows of a random semi-orthogonal matrix [n, I * k], times `gain`.

    Up to I * k filters are orthogonal to each other, each of norm `gain`; of more, the columns are. Those
    that stay are not looked at, see `ResidualOrthogonal`.

    *Source: A. Saxe, J. McClelland, S. Ganguli, 2014, arXiv 1312.6120;* the QR decomposition is
    `torch.nn.init.orthogonal_`. Departures: each group is a matrix of its own, filters that stay have no
    row in it, and the gain of a transposed convolution grows with the root of its stride.

    >>> from compressor.design import initialise_
    >>> layer = nn.Linear(8, 4)
    >>> _ = initialise_(layer, Orthogonal(1.0))
    >>> torch.allclose(layer.weight @ layer.weight.T, torch.eye(4), atol=1e-6)
    True
    """

    gain: float = GAIN_OF_RELU

    def __post_init__(self) -> None:
        check_gain("Orthogonal", self.gain)

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The rows as filters."""
        rows = part.filters.new_empty(part.count, part.size)
        nn.init.orthogonal_(rows, self.gain * math.sqrt(part.layer.stride), generator=generator)
        return rows.reshape(part.count, part.channels, *part.kernel_size)


@dataclass(frozen=True)
class ResidualOrthogonal(Initialiser):
    """Random filters less their projection on those that stay and on each other, of norm `gain`.

    So a new filter sees nothing of what the old ones see. Raises InputError where the filters that stay leave
    too few directions of the I * k that there are.

    *Source: the Gram-Schmidt process; for filters that were reset, A. Prakash, J. Storer, D. Florencio, C.
    Zhang, 2019, RePr, arXiv 1811.07275 (orthogonal to their values before and to those that stay).*
    Departure: values before are not looked at, as they are degenerate here.

    >>> from compressor.design import initialise_
    >>> layer = nn.Linear(8, 4)
    >>> _ = initialise_(layer, ResidualOrthogonal(), filters=torch.tensor([True, False, False, False]))
    >>> float((layer.weight[1:] @ layer.weight[0]).detach().abs().max()) < 1e-6
    True
    """

    gain: float = GAIN_OF_RELU

    def __post_init__(self) -> None:
        check_gain("ResidualOrthogonal", self.gain)

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """An orthonormal basis of random directions in what the kept filters leave, scaled."""
        kept = part.kept.flatten(1).double()
        require_finite(kept, f"what stays of {part.layer.name}")
        _, values, directions = torch.linalg.svd(kept, full_matrices=False)
        # The usual tolerance of a rank: rounding of the weights is of the size of their largest.
        least = values.amax() * max(kept.shape) * torch.finfo(part.filters.dtype).eps if len(values) else 0.0
        taken = directions[values > least]
        free = part.size - len(taken)
        if part.count > free:
            raise InputError(
                f"{part.layer.name}: the {len(kept)} filters that stay span {len(taken)} of {part.size} "
                f"directions, so {part.count} new ones cannot be orthogonal to them; draw them with "
                "Orthogonal() or He()"
            )
        noise = part.filters.new_empty(part.count, part.size).normal_(generator=generator).double()
        for _ in range(2):  # once more for what rounding leaves
            noise -= noise @ taken.T @ taken
        rows, _ = torch.linalg.qr(noise.T)
        new = rows.T.reshape(part.count, part.channels, *part.kernel_size).to(part.filters)
        return part.to_gain(new, self.gain)
