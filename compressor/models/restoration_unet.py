"""A small U-Net for images: the posterior mean of a restoration, or with a time the velocity of a flow.

Source: K. Zhang, Y. Li, W. Zuo, L. Zhang, L. Van Gool, R. Timofte, 2021, "Plug-and-Play Image Restoration
with Deep Denoiser Prior" (DRUNet), arXiv 2008.13751, section 3.1: residual blocks without norms, 2x2
convolutions of stride 2 down and transposed ones up, skips added. Departures: three levels of one block
instead of four of four, SiLU in front of both convolutions instead of ReLU between them, biases and time.

A time t in [0, 1] enters as (t, sin, cos of π t 2^k), k < 4, through one hidden layer, and each block scales
and shifts its channels by a linear map of that (FiLM: E. Perez et al., 2018, arXiv 1709.07871).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.registry import model

__all__ = ["RestorationUNet", "time_features"]

OCTAVES = 4  # of the time's sines


def time_features(t: Tensor) -> Tensor:
    """The features [N, 9] of times [N]: t, then the sines and the cosines of π t 2^k, k < 4.

    >>> time_features(torch.tensor([0.0, 0.5])).shape
    torch.Size([2, 9])
    """
    angles = t[:, None] * (math.pi * 2.0 ** torch.arange(OCTAVES, device=t.device)).to(t.dtype)
    return torch.cat((t[:, None], angles.sin(), angles.cos()), 1)


class Block(nn.Module):
    """Two 3x3 convolutions around which the input goes; a time scales and shifts what is between them.

    >>> Block(8, time_width=None)(torch.zeros(1, 8, 4, 4), None).shape
    torch.Size([1, 8, 4, 4])
    """

    def __init__(self, channels: int, *, time_width: int | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = None if time_width is None else nn.Linear(time_width, 2 * channels)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        inner = self.conv1(F.silu(x))
        if self.film is not None:
            scale, shift = self.film(time)[:, :, None, None].chunk(2, 1)
            inner = inner * (1 + scale) + shift
        out: Tensor = x + self.conv2(F.silu(inner))
        return out


@model("restoration_unet")
class RestorationUNet(nn.Module):
    """Images [N, in_channels, H, W] to images [N, out_channels, H, W]; H and W multiples of 2^(levels - 1).

    `time_width` is the width of the time's features; None for a network without time. With `input_skip` the
    first `out_channels` channels of the input are added to the output. Raises InputError for sizes that do
    not fit.

    >>> net = RestorationUNet(in_channels=1, out_channels=1, width=8, time_width=16)
    >>> net(torch.zeros(2, 1, 8, 8), torch.tensor([0.0, 0.5])).shape
    torch.Size([2, 1, 8, 8])
    >>> sum(p.numel() for p in RestorationUNet(width=8).parameters())
    54243
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 32,
        levels: int = 3,
        time_width: int | None = None,
        input_skip: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "width": width, "levels": levels}
        require_positive(
            "RestorationUNet", **sizes, **({} if time_width is None else {"time_width": time_width})
        )
        if input_skip and in_channels < out_channels:
            raise InputError(
                f"RestorationUNet: input_skip adds {out_channels} channels of an input that has {in_channels}"
            )
        widths = [width * 2**level for level in range(levels)]
        self.in_channels, self.out_channels, self.input_skip = in_channels, out_channels, input_skip
        self.multiple = 2 ** (levels - 1)
        self.time = None if time_width is None else nn.Linear(1 + 2 * OCTAVES, time_width)
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.encoder = nn.ModuleList(Block(w, time_width=time_width) for w in widths)
        self.down = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[:-1])
        self.decoder = nn.ModuleList(Block(w, time_width=time_width) for w in widths)
        self.head = nn.Conv2d(width, out_channels, 3, padding=1)
        # At first the network adds nothing to the skip, and a velocity is zero.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type] # there is one

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        if (t is None) != (self.time is None):
            wanted = "none: it was built without time_width" if self.time is None else "t [N]"
            raise InputError(f"RestorationUNet: expected as the time {wanted}")
        if (
            x.dim() != 4
            or x.shape[1] != self.in_channels
            or x.shape[2] % self.multiple
            or x.shape[3] % self.multiple
        ):
            raise InputError(
                f"RestorationUNet: expected [N, {self.in_channels}, H, W] with H and W multiples of "
                f"{self.multiple}, got {list(x.shape)}; pad or crop the images"
            )
        time = None if self.time is None or t is None else F.silu(self.time(time_features(t)))
        inner = self.stem(x)
        skips = []
        for block, down in zip(self.encoder[:-1], self.down, strict=True):
            inner = block(inner, time)
            skips.append(inner)
            inner = down(inner)
        inner = self.decoder[-1](self.encoder[-1](inner, time), time)
        for block, up, skip in zip(
            reversed(self.decoder[:-1]), reversed(self.up), reversed(skips), strict=True
        ):
            inner = block(skip + up(inner), time)
        out: Tensor = self.head(F.silu(inner))
        return x[:, : self.out_channels] + out if self.input_skip else out
