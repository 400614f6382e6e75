"""The layers of SwinIR: blocks of attention within windows, shifted in turn, and the groups they stand in.

Sources: see `compressor.models.swinir`; names of parameters are those of the published files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Block",
    "DropPath",
    "Embedding",
    "ResidualGroup",
    "WindowAttention",
    "mask_of_shifted",
    "offsets_in_window",
]

SHUT = -100.0  # what is added to the logits of two pixels that the cyclic shift made neighbours


class DropPath(nn.Module):
    """A branch that is left out for each image with probability `rate` in training, and scaled up otherwise.

    *Source: G. Huang et al., 2016, arXiv 1603.09382*, scaled as dropout is.

    >>> DropPath(0.1)
    DropPath(rate=0.1)
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand([len(x)] + [1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * kept.to(x.dtype) / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


class WindowAttention(nn.Module):
    """Attention among the pixels of each window [N, h, w, P, C], P = `window`², with a bias for each offset.

    softmax(q kᵀ d^-½ + bias + mask) v, d being the dims of a head when the layer was made. `mask`
    [h, w, 1, P, P] is added for windows that a shift has put together.

    *Source: Z. Liu et al., 2021, arXiv 2103.14030, equation 4.*

    >>> WindowAttention(8, heads=2, window=4)(torch.ones(1, 2, 3, 16, 8)).shape
    torch.Size([1, 2, 3, 16, 8])
    """

    relative_position_index: Tensor

    def __init__(self, width: int, *, heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.scale = (width // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", offsets_in_window(window), persistent=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3) for part in self.qkv(x).chunk(3, -1)
        )
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        logits = (q * self.scale) @ k.transpose(-1, -2) + bias
        if mask is not None:
            logits = logits + mask
        out: Tensor = self.proj((logits.softmax(-1) @ v).transpose(-2, -3).flatten(-2))
        return out


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Window attention and an MLP on pixels [N, H, W, C], each behind a norm and added to what came in."""

    def __init__(
        self, width: int, *, heads: int, window: int, shift: int, mlp_ratio: float, drop: float
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads=heads, window=window)
        self.drop_path = DropPath(drop)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out = self.norm1(x)
        if self.shift:
            out = out.roll((-self.shift, -self.shift), (1, 2))
        out = self.attn(_windows(out, self.window), mask if self.shift else None)
        out = _image(out, self.window)
        if self.shift:
            out = out.roll((self.shift, self.shift), (1, 2))
        x = x + self.drop_path(out)
        more: Tensor = self.drop_path(self.mlp(self.norm2(x)))
        return x + more


class Blocks(nn.Module):
    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class ResidualGroup(nn.Module):
    """Blocks, a convolution behind them, and a way around all of it."""

    def __init__(self, width: int, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.residual_group = Blocks(blocks)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.conv(self.residual_group(x, mask).permute(0, 3, 1, 2))
        return x + out.permute(0, 2, 3, 1)


class Embedding(nn.Module):
    """Images [N, C, H, W] as normalised pixels [N, H, W, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return out


def _windows(x: Tensor, window: int) -> Tensor:
    """Windows [N, h, w, P, C] of an image [N, H, W, C], row by row."""
    rows: Tensor = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return rows.transpose(2, 3).flatten(3, 4)


def _image(windows: Tensor, window: int) -> Tensor:
    """The image [N, H, W, C] that windows [N, h, w, P, C] are of."""
    rows: Tensor = windows.unflatten(3, (window, window))
    return rows.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def mask_of_shifted(height: int, width: int, window: int, like: Tensor) -> Tensor:
    """What shifted windows [h, w, 1, P, P] must not attend to: pixels from the other end of the image."""
    rows, columns = (
        (at >= size - window).long() + (at >= size - window // 2).long()
        for size, at in (
            (height, torch.arange(height, device=like.device)),
            (width, torch.arange(width, device=like.device)),
        )
    )
    region = _windows((3 * rows[:, None] + columns)[None, :, :, None], window)[0, ..., 0]
    apart = region[..., None] != region[..., None, :]
    return apart.to(like.dtype)[:, :, None] * SHUT


def offsets_in_window(window: int) -> Tensor:
    """The row of a bias table for each pair of pixels [P, P] of a window, as Swin counts their offsets.

    >>> offsets_in_window(2).tolist()
    [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    """
    at = torch.arange(window)
    rows, columns = at.repeat_interleave(window), at.repeat(window)
    down, right = rows[:, None] - rows, columns[:, None] - columns
    return (down + window - 1) * (2 * window - 1) + right + window - 1
