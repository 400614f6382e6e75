"""The layers of HDiT: norms that are told of time, attention, feed-forward blocks, merges and splits.

Sources and departures: see `compressor.models.hdit`. Shapes: B images, h x w tokens, N = h w.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.token_attention import Grid, Reach

__all__ = [
    "AxialRoPE",
    "FourierFeatures",
    "Layer",
    "Level",
    "Mapping",
    "PatchOut",
    "RMSNorm",
    "SelfAttention",
    "TokenMerge",
    "TokenSplit",
    "positions_of",
]

FEED_FORWARD = 3  # hidden width of a feed-forward block, over the width of its level
EPS = 1e-6  # under every root, as in the source


@dataclass(frozen=True)
class Level:
    """One level of the hourglass: `depth` layers on the way down and as many up; in the last, `depth` in all.

    >>> from compressor.models.token_attention import Neighborhood
    >>> Level(width=384, depth=2, reach=Neighborhood(7)).heads
    6
    """

    width: int
    depth: int
    reach: Reach
    head_dim: int = 64

    def __post_init__(self) -> None:
        require_positive("Level", width=self.width, depth=self.depth, head_dim=self.head_dim)
        if not isinstance(self.reach, Reach):
            raise InputError(f"Level: reach must be a Reach such as Neighborhood(7), got {self.reach!r}")
        if self.width % self.head_dim or self.head_dim % 8:
            raise InputError(
                "Level: width must be a multiple of head_dim, and head_dim of 8 (a frequency takes 8 dims), "
                f"got width={self.width}, head_dim={self.head_dim}"
            )

    @property
    def heads(self) -> int:
        return self.width // self.head_dim


# -- norms and features --------------------------------------------------------------------------


def _inverse_root(x: Tensor) -> Tensor:
    return torch.rsqrt(x + EPS)


def _squared(x: Tensor) -> Tensor:
    """Squares, in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32)).square()


class RMSNorm(nn.Module):
    """x times a learnt scale over the root of the mean square of its channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale * _inverse_root(_squared(x).mean(-1, keepdim=True))
        return x * scale.to(x.dtype)


class AdaRMSNorm(nn.Module):
    """The same with the scale 1 + W cond, which tells of time: x B x h x w x width, cond B x cond width."""

    def __init__(self, width: int, cond_width: int) -> None:
        super().__init__()
        self.linear = _zeroed(nn.Linear(cond_width, width, bias=False))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale: Tensor = self.linear(cond)[:, None, None, :] + 1
        return x * (scale * _inverse_root(_squared(x).mean(-1, keepdim=True))).to(x.dtype)


class FourierFeatures(nn.Module):
    """cos and sin of 2 pi W x for a fixed random W: B x inputs -> B x width.

    W is a buffer of the state dict: a network with another one is another network.
    """

    weight: Tensor

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(width // 2, inputs))

    def forward(self, x: Tensor) -> Tensor:
        turns = (x[:, None, :].to(self.weight.dtype) * self.weight).sum(-1)
        phase = 2 * math.pi * turns
        return torch.cat([phase.cos(), phase.sin()], dim=-1)


class AxialRoPE(nn.Module):
    """Angles that queries and keys turn by: positions N x 2 -> N x heads x 2 r, r = head_dim / 8 frequencies.

    Each head has frequencies of its own, the same for rows (first half) and columns (second half). One turns
    four dims, so a pruned head loses four with each.
    """

    freqs: Tensor

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        count = head_dim // 8
        logs = torch.linspace(math.log(math.pi), math.log(10 * math.pi), heads * count + 1)[:-1]
        self.register_buffer("freqs", logs.exp().view(count, heads).T.contiguous())

    def forward(self, positions: Tensor) -> Tensor:
        by_row, by_column = (positions[:, axis, None, None] * self.freqs for axis in (0, 1))
        return torch.cat([by_row, by_column], dim=-1)


def _of_length_one(x: Tensor) -> Tensor:
    return x * _inverse_root(_squared(x).sum(-1, keepdim=True))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first dims of x turn with as many behind them, by one angle each; the others stay."""
    count = cos.shape[-1]
    one, two, rest = x[..., :count], x[..., count : 2 * count], x[..., 2 * count :]
    return torch.cat([one * cos - two * sin, two * cos + one * sin, rest], dim=-1)


def positions_of(grid: Grid, like: Tensor) -> Tensor:
    """Centres of the tokens, N x 2. The longer side of the grid spans -1 to 1, the shorter its share."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    rows, columns = (
        (2 * torch.arange(size, dtype=dtype, device=like.device) + 1 - size) / max(grid) for size in grid
    )
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)


# -- layers --------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Cosine attention with a learnt scale for each head and rotary positions, behind a norm.

    Queries and keys may be narrower than values: both widths are attributes that `forward` reads, so that
    they can follow a pruned network.
    """

    def __init__(self, level: Level, reach: Reach, cond_width: int) -> None:
        super().__init__()
        self.heads = level.heads
        self.key_width = self.value_width = level.width
        self.reach = reach
        self.norm = AdaRMSNorm(level.width, cond_width)
        self.qkv_proj = nn.Linear(level.width, 3 * level.width, bias=False)
        self.scale = nn.Parameter(torch.full((level.heads,), 10.0))
        self.pos_emb = AxialRoPE(level.heads, level.head_dim)
        self.out_proj = _zeroed(nn.Linear(level.width, level.width, bias=False))

    def forward(self, x: Tensor, positions: Tensor, cond: Tensor) -> Tensor:
        grid = Grid(x.shape[1], x.shape[2])
        sizes = self.key_width, self.key_width, self.value_width
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv_proj(self.norm(x, cond)).flatten(1, 2).split(sizes, dim=-1)
        )
        angles = self.pos_emb(positions).transpose(0, 1)
        cos, sin = angles.cos(), angles.sin()
        length = self.scale.sqrt()[:, None, None]
        q, k = (_turned(length * _of_length_one(part), cos, sin).to(v.dtype) for part in (q, k))
        found = self.reach.attend(q, k, v, grid)
        out: Tensor = self.out_proj(found.transpose(1, 2).flatten(2).unflatten(1, grid))
        return x + out

    def extra_repr(self) -> str:
        return f"heads={self.heads}, reach={self.reach}"


class FeedForward(nn.Module):
    """value * gelu(gate), two halves of one projection, and back to the width of the stream."""

    def __init__(self, width: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.up_proj = nn.Linear(width, 2 * FEED_FORWARD * width, bias=False)
        self.down_proj = _zeroed(nn.Linear(FEED_FORWARD * width, width, bias=False))

    def forward(self, x: Tensor, *cond: Tensor) -> Tensor:
        value, gate = self.up_proj(self.norm(x, *cond)).chunk(2, dim=-1)
        out: Tensor = self.down_proj(value * F.gelu(gate))
        return x + out


class Layer(nn.Module):
    """Attention and a feed-forward block, each added to the stream."""

    def __init__(self, level: Level, reach: Reach, cond_width: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(level, reach, cond_width)
        self.ff = FeedForward(level.width, AdaRMSNorm(level.width, cond_width))

    def forward(self, x: Tensor, positions: Tensor, cond: Tensor) -> Tensor:
        out: Tensor = self.ff(self.self_attn(x, positions, cond), cond)
        return out


class Mapping(nn.Module):
    """What the norms of all layers are told of time: residual feed-forward blocks between two norms."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.in_norm = RMSNorm(width)
        self.blocks = nn.Sequential(*(FeedForward(width, RMSNorm(width)) for _ in range(depth)))
        self.out_norm = RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_norm(self.blocks(self.in_norm(x)))
        return out


# -- between the levels --------------------------------------------------------------------------


class TokenMerge(nn.Module):
    """`side` x `side` tokens become one: B x h x w x e -> B x h/side x w/side x width.

    The projection reads them one after the other, row by row.
    """

    def __init__(self, inputs: int, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.proj = nn.Linear(inputs * side**2, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        blocks = x.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side))
        out: Tensor = self.proj(blocks.transpose(2, 3).flatten(3))
        return out


def _split(x: Tensor, side: int) -> Tensor:
    """One token becomes `side` x `side`: the inverse of the rearrangement in TokenMerge."""
    blocks: Tensor = x.unflatten(-1, (side, side, -1))
    return blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class TokenSplit(nn.Module):
    """Tokens of the level below, split and mixed with the skip connection by one learnt number."""

    def __init__(self, inputs: int, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.fac = nn.Parameter(torch.full((1,), 0.5))
        self.proj = nn.Linear(inputs, width * side**2, bias=False)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = _split(self.proj(x), self.side)
        return torch.lerp(skip, x, self.fac.to(x.dtype))


class PatchOut(nn.Module):
    """Tokens to pixels, from zero."""

    def __init__(self, inputs: int, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.proj = _zeroed(nn.Linear(inputs, channels * side**2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return _split(self.proj(x), self.side)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    return layer
