"""HDiT: the hourglass transformer that PMRF uses as its velocity field, in plain PyTorch.

Sources: Crowson, Baumann, Birch, Abraham, Kaplan, Shippole 2024, "Scalable High-Resolution Pixel-Space Image
Synthesis with Hourglass Diffusion Transformers", arXiv 2401.11605, sections 4.1 to 4.3; configurations and
conditioning of Ohayon, Michaeli, Elad 2025, "Posterior-Mean Rectified Flow", arXiv 2410.00418, and its code
github.com/ohayonguy/PMRF, whose tensors have the same names and shapes: its checkpoints load by
`load_state_dict`.

Departures: neighbourhood attention is written in PyTorch (`token_attention.Neighborhood`), not natten's;
times and positions are never rounded to bfloat16; dropout, class labels and other conditioning, which PMRF
does not use, are left out.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.registry import model
from compressor.models.token_attention import Everywhere, Grid, Neighborhood, Reach

__all__ = ["HDiT", "Level", "hdit_imagenet256_sp4", "hdit_small", "hdit_xl2"]

FEED_FORWARD = 3  # hidden width of a feed-forward block, over the width of its level
AUGMENTATION = 9  # numbers that say how a training image was augmented; zeros here
EPS = 1e-6  # under every root, as in the source


@dataclass(frozen=True)
class Level:
    """One level of the hourglass: `depth` layers on the way down and as many up; in the last, `depth` in all.

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


def _positions(grid: Grid, like: Tensor) -> Tensor:
    """Centres of the tokens, N x 2. The longer side spans -1 to 1, the shorter its share of that."""
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


# -- the network ---------------------------------------------------------------------------------


class HDiT(nn.Module):
    """The velocity at images x and times t: B x in_channels x H x W and B -> B x out_channels x H x W.

    Without t a constant takes the place of its features, for a network that needs no time. Extra input
    channels (a degraded image to condition on) come behind those of x in one tensor. H and W are multiples of
    `self.multiple` and at least `self.least`; InputError otherwise.

    >>> levels = Level(64, 1, Neighborhood(7), head_dim=32), Level(128, 1, Everywhere(), head_dim=32)
    >>> net = HDiT(levels, patch=2)
    >>> net(torch.rand(2, 3, 32, 24), torch.tensor([0.1, 0.7])).shape
    torch.Size([2, 3, 32, 24])
    >>> net.multiple, net.least
    (4, 14)
    """

    def __init__(
        self,
        levels: tuple[Level, ...],
        *,
        patch: int = 4,
        mapping_depth: int = 2,
        mapping_width: int = 768,
        in_channels: int = 3,
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        require_positive("HDiT", patch=patch, mapping_depth=mapping_depth, mapping_width=mapping_width)
        require_positive("HDiT", in_channels=in_channels, out_channels=out_channels)
        if mapping_width % 2:
            raise InputError(f"HDiT: mapping_width must be even (cosines and sines), got {mapping_width}")
        if not levels:
            raise InputError("HDiT: levels must hold at least one Level, got none")
        self.in_channels = in_channels
        sides = [patch * 2**i for i in range(len(levels))]
        self.multiple = math.lcm(*(n * level.reach.multiple for n, level in zip(sides, levels, strict=True)))
        self.least = max(n * level.reach.least for n, level in zip(sides, levels, strict=True))

        *outer, inner = levels
        pairs = list(itertools.pairwise(levels))
        self.patch_in = TokenMerge(in_channels, levels[0].width, patch)
        self.time_emb = FourierFeatures(1, mapping_width)
        self.time_in_proj = nn.Linear(mapping_width, mapping_width, bias=False)
        self.aug_emb = FourierFeatures(AUGMENTATION, mapping_width)
        self.aug_in_proj = nn.Linear(mapping_width, mapping_width, bias=False)
        self.mapping = Mapping(mapping_width, mapping_depth)
        self.down_levels = nn.ModuleList(_layers(x, 0, mapping_width) for x in outer)
        self.up_levels = nn.ModuleList(_layers(x, x.depth, mapping_width) for x in outer)
        self.mid_level = _layers(inner, 0, mapping_width)
        self.merges = nn.ModuleList(TokenMerge(a.width, b.width, 2) for a, b in pairs)
        self.splits = nn.ModuleList(TokenSplit(b.width, a.width, 2) for a, b in pairs)
        self.out_norm = RMSNorm(levels[0].width)
        self.patch_out = PatchOut(levels[0].width, out_channels, patch)

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        self._check(x, t)
        cond = self._condition(x, t)
        x = self.patch_in(x.permute(0, 2, 3, 1))
        skips = []
        for level, merge in zip(self.down_levels, self.merges, strict=True):
            x = _through(level, x, cond)
            skips.append(x)
            x = merge(x)
        x = _through(self.mid_level, x, cond)
        for level, split, skip in reversed(list(zip(self.up_levels, self.splits, skips, strict=True))):
            x = _through(level, split(x, skip), cond)
        out: Tensor = self.patch_out(self.out_norm(x))
        return out.permute(0, 3, 1, 2)

    def _condition(self, x: Tensor, t: Tensor | None) -> Tensor:
        """What the norms are told, B x mapping width; one row for all images where no time is given."""
        time = x.new_ones(1, self.time_in_proj.in_features) if t is None else self.time_emb(t[:, None])
        augmentation = self.aug_emb(x.new_zeros(1, self.aug_emb.weight.shape[1]))
        cond: Tensor = self.mapping(self.time_in_proj(time) + self.aug_in_proj(augmentation))
        return cond

    def _check(self, x: Tensor, t: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_channels or not x.is_floating_point():
            raise InputError(
                f"HDiT: x must be B x {self.in_channels} x H x W (in_channels={self.in_channels}) of floats, "
                f"got {tuple(x.shape)} of {x.dtype}"
            )
        height, width = x.shape[2:]
        if height % self.multiple or width % self.multiple or min(height, width) < self.least:
            raise InputError(
                f"HDiT: height and width must be multiples of {self.multiple} (patches, merges and windows) "
                f"and at least {self.least}, got {height} x {width}; pad the images and crop the result"
            )
        if t is not None and not isinstance(t, Tensor):
            raise InputError(f"HDiT: t must be a tensor with one time for each image, got {t!r}")
        if t is not None and t.shape != x.shape[:1]:
            raise InputError(
                f"HDiT: t must hold one time for each image, shape ({x.shape[0]},), got {tuple(t.shape)}"
            )


def _layers(level: Level, first: int, cond_width: int) -> nn.ModuleList:
    return nn.ModuleList(
        Layer(level, level.reach.of_layer(first + i), cond_width) for i in range(level.depth)
    )


def _through(level: nn.Module, x: Tensor, cond: Tensor) -> Tensor:
    positions = _positions(Grid(x.shape[1], x.shape[2]), x)
    for layer in level.children():
        x = layer(x, positions, cond)
    return x


# -- configurations ------------------------------------------------------------------------------


@model("hdit_xl2")
def hdit_xl2(*, in_channels: int = 3, out_channels: int = 3, tile: int = 4) -> HDiT:
    """The network of PMRF's controlled experiments, for images of 256x256 pixels.

    `tile=1` has the MACs of the paper, see `Neighborhood`: 138.70 G, with 4 it is 139.34 G.

    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in hdit_xl2().parameters())
    121544221
    """
    levels = (Level(384, 2, Neighborhood(7, tile=tile)), Level(768, 11, Everywhere()))
    return HDiT(levels, in_channels=in_channels, out_channels=out_channels)


@model("hdit_imagenet256_sp4")
def hdit_imagenet256_sp4(*, in_channels: int = 3, out_channels: int = 3, tile: int = 4) -> HDiT:
    """The network of PMRF's blind face restoration, for images of 512x512 pixels; `tile` as in `hdit_xl2`.

    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in hdit_imagenet256_sp4().parameters())
    160460210
    """
    levels = (
        Level(256, 2, Neighborhood(7, tile=tile)),
        Level(512, 2, Neighborhood(7, tile=tile)),
        Level(1024, 8, Everywhere()),
    )
    return HDiT(levels, in_channels=in_channels, out_channels=out_channels)


@model("hdit_small")
def hdit_small(*, in_channels: int = 3, out_channels: int = 3, reach: Reach | None = None) -> HDiT:
    """A network that trains on CPU cores, for images of 32x32 pixels or more: ours, of no publication.

    `reach` is the attention of the upper level, by default a neighbourhood of 7x7.

    >>> sum(p.numel() for p in hdit_small().parameters())
    878541
    """
    levels = (
        Level(64, 1, Neighborhood(7) if reach is None else reach, head_dim=32),
        Level(128, 2, Everywhere(), head_dim=32),
    )
    return HDiT(
        levels,
        patch=2,
        mapping_depth=1,
        mapping_width=128,
        in_channels=in_channels,
        out_channels=out_channels,
    )
