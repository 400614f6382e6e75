"""Filters of the discrete cosine transform."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from compressor.design.channel_mixes import ChannelMixes, cosines
from compressor.design.initialiser import Initialiser
from compressor.design.layer import Part
from compressor.design.noise import GAIN_OF_RELU, check_gain
from compressor.errors import InputError
from compressor.filters.cosines import dct_kernels

__all__ = ["DCT", "dct_kernels"]


@dataclass(frozen=True)
class DCT(Initialiser):
    """Kernels of the discrete cosine transform, low frequencies first, each filter of norm `gain`.

    `channels` says how a kernel is spread over input channels: with `cosines` (the DCT over channels, too)
    the filters are orthogonal and up to I * k of them span everything that can be read; `equal` reads
    brightness only, `each` one channel at a time. All kernels on the first mix come first, then the second.
    Nothing is drawn at random. Raises InputError where more filters are asked for than there are.

    *Source: as `dct_kernels`; as filters of networks M. Ulicny, V. Krylov, R. Dahyot, 2019, Harmonic
    networks, arXiv 1905.00135.* Departure: there a 1 x 1 convolution learns the mix of each.

    >>> from compressor.design import initialise_
    >>> conv = torch.nn.Conv2d(3, 16, 3)
    >>> _ = initialise_(conv, DCT(1.0))
    >>> rows = conv.weight.detach().flatten(1)
    >>> torch.allclose(rows @ rows.T, torch.eye(16), atol=1e-6)
    True
    """

    gain: float = GAIN_OF_RELU
    _: KW_ONLY
    channels: ChannelMixes = cosines

    def __post_init__(self) -> None:
        check_gain("DCT", self.gain)

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The first n products of mixes and kernels."""
        kernels, mixes = dct_kernels(part.kernel_size), self.channels(part.channels)
        most = len(kernels) * len(mixes)
        if part.count > most:
            raise InputError(
                f"DCT: {part.layer.name} takes {part.count} filters, and there are {most}: {len(kernels)} "
                f"kernels on {len(mixes)} mixes of {part.channels} channels; draw fewer (a mask), or with "
                "Orthogonal()"
            )
        filters = torch.einsum("mi,f...->mfi...", mixes, kernels).flatten(0, 1)[: part.count]
        return part.to_gain(filters.to(part.filters), self.gain)
