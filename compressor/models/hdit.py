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

from torch import Tensor, nn

from compressor.errors import InputError
from compressor.models.hdit_layers import (
    FourierFeatures,
    Layer,
    Level,
    Mapping,
    PatchOut,
    RMSNorm,
    TokenMerge,
    TokenSplit,
    positions_of,
)
from compressor.models.options import require_positive
from compressor.models.registry import model
from compressor.models.token_attention import Everywhere, Grid, Neighborhood, Reach

__all__ = ["HDiT", "Level", "hdit_imagenet256_sp4", "hdit_small", "hdit_xl2"]

AUGMENTATION = 9  # numbers that say how a training image was augmented; zeros here


# -- the network ---------------------------------------------------------------------------------


class HDiT(nn.Module):
    """The velocity at images x and times t: B x in_channels x H x W and B -> B x out_channels x H x W.

    Without t a constant takes the place of its features, for a network that needs no time. Extra input
    channels (a degraded image to condition on) come behind those of x in one tensor. H and W are multiples of
    `self.multiple` and at least `self.least`; InputError otherwise.

    >>> import torch
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
    positions = positions_of(Grid(x.shape[1], x.shape[2]), x)
    for layer in level.children():
        x = layer(x, positions, cond)
    return x


# -- configurations ------------------------------------------------------------------------------


@model("hdit_xl2")
def hdit_xl2(*, in_channels: int = 3, out_channels: int = 3, tile: int = 4) -> HDiT:
    """The network of PMRF's controlled experiments, for images of 256x256 pixels.

    `tile=1` has the MACs of the paper, see `Neighborhood`: 138.70 G, with 4 it is 139.34 G.

    >>> import torch
    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in hdit_xl2().parameters())
    121544221
    """
    levels = (Level(384, 2, Neighborhood(7, tile=tile)), Level(768, 11, Everywhere()))
    return HDiT(levels, in_channels=in_channels, out_channels=out_channels)


@model("hdit_imagenet256_sp4")
def hdit_imagenet256_sp4(*, in_channels: int = 3, out_channels: int = 3, tile: int = 4) -> HDiT:
    """The network of PMRF's blind face restoration, for images of 512x512 pixels; `tile` as in `hdit_xl2`.

    >>> import torch
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
