"""SwinIR as PMRF estimates the posterior mean: shifted windows on an image folded by eight, then up-sampling.

Sources: J. Liang et al. 2021, "SwinIR: Image Restoration Using Swin Transformer", arXiv 2108.10257; the sizes
are those of G. Ohayon, T. Michaeli, M. Elad 2025, "Posterior-Mean Rectified Flow", arXiv 2410.00418 and its
code, which took them from DifFace. Names of parameters are those of the published files, see
`load_swinir_checkpoint`.

Departures: images are padded to multiples of 64 where the original pads to 8 and fails afterwards, and the
result has the input's size; masks of shifted windows are made for the image at hand and held by nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.registry import model
from compressor.models.swinir_layers import Block, Embedding, ResidualGroup, mask_of_shifted

__all__ = ["SwinIR"]

MEAN = (0.4488, 0.4371, 0.4040)  # of the red, green and blue of DIV2K in [0, 1]


class SwinIR(nn.Module):
    """Restored images [N, 3, H, W] of degraded ones [N, 3, H, W] or, grey, [N, 1, H, W], values in [0, 1].

    - `width` channels in every block, `depths` blocks in each residual group, `heads` of attention in each
      block; every second block shifts its `window`s by half of one.
    - `unshuffle`: a power of two; squares of so many pixels become channels, and the tail up-samples as often
      as it takes, with `features` channels.
    - `drop_path` is the rate of the last block, those before have less in equal steps.

    H and W are any number of pixels: an image is reflected at its lower and right end up to a multiple of
    `unshuffle` · `window`, and the result cropped. Raises InputError where it is too small for that. A grey
    image is taken as one of three equal channels, as published. To export with free H and W, give an example
    of two windows or more in both (128x128): torch.export holds sizes of 1 for fixed.

    >>> net = SwinIR(width=24, depths=(2, 2), heads=4)
    >>> sum(p.numel() for p in net.parameters())
    243635
    >>> net.eval()(torch.rand(1, 1, 70, 64)).shape
    torch.Size([1, 3, 70, 64])
    """

    mean: Tensor

    def __init__(
        self,
        *,
        width: int = 120,
        depths: Sequence[int] = (6, 6, 6, 6, 6),
        heads: int = 6,
        window: int = 8,
        unshuffle: int = 8,
        features: int = 64,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        require_positive(
            "SwinIR",
            width=width,
            heads=heads,
            window=window,
            unshuffle=unshuffle,
            features=features,
            groups=len(depths),
        )
        require_positive("SwinIR", **{f"depths[{i}]": depth for i, depth in enumerate(depths)})
        if width % heads:
            raise InputError(f"SwinIR: width={width} must be a multiple of heads={heads}")
        if unshuffle & (unshuffle - 1):
            raise InputError(f"SwinIR: unshuffle must be a power of two, got {unshuffle}")
        if not 0 <= drop_path < 1:
            raise InputError(f"SwinIR: drop_path must be at least 0 and below 1, got {drop_path!r}")
        self.window, self.multiple = window, unshuffle * window
        self.stages = unshuffle.bit_length() - 1
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Sequential(
            nn.PixelUnshuffle(unshuffle), nn.Conv2d(3 * unshuffle**2, width, 3, padding=1)
        )
        self.patch_embed = Embedding(width)
        blocks = sum(depths)
        rates = iter([drop_path * number / max(blocks - 1, 1) for number in range(blocks)])
        block = partial(Block, width, heads=heads, window=window, mlp_ratio=mlp_ratio)
        self.layers = nn.ModuleList(
            ResidualGroup(
                width, [block(shift=index % 2 * (window // 2), drop=next(rates)) for index in range(depth)]
            )
            for depth in depths
        )
        self.norm = nn.LayerNorm(width)
        self.conv_after_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(width, features, 3, padding=1), nn.LeakyReLU())
        for stage in range(self.stages):
            setattr(self, f"conv_up{stage + 1}", nn.Conv2d(features, features, 3, padding=1))
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)
        self.apply(_initialise_)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self._checked(x)
        # By nothing where the sizes divide: an exported file has no branch, and takes any size.
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="reflect") - self.mean
        shallow: Tensor = self.conv_first(x)
        deep = self.patch_embed(shallow)
        mask = mask_of_shifted(deep.shape[1], deep.shape[2], self.window, deep)
        for layer in self.layers:
            deep = layer(deep, mask)
        out: Tensor = self.conv_after_body(self.norm(deep).permute(0, 3, 1, 2)) + shallow
        out = self.conv_before_upsample(out)
        for stage in range(self.stages):
            larger = F.interpolate(out, scale_factor=2.0, mode="nearest")
            out = F.leaky_relu(self.get_submodule(f"conv_up{stage + 1}")(larger), 0.2)
        out = self.conv_last(F.leaky_relu(self.conv_hr(out), 0.2)) + self.mean
        return out[:, :, :height, :width]

    def _checked(self, x: Tensor) -> tuple[int, int]:
        """H and W of an input that the network can take."""
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise InputError(
                f"SwinIR: expected images [N, 3, H, W], or grey ones [N, 1, H, W], got {list(x.shape)}"
            )
        height, width = x.shape[2], x.shape[3]
        for name, size in (("height", height), ("width", width)):
            if -size % self.multiple >= size:
                raise InputError(
                    f"SwinIR: an image of {height}x{width} is too small to be reflected up to a multiple of "
                    f"{self.multiple}: its {name} must be more than {self.multiple // 2}; enlarge it, or "
                    f"make the network with a smaller unshuffle or window"
                )
        return height, width


def _initialise_(module: nn.Module) -> None:
    """Linear layers as in Swin; norms and convolutions keep torch's defaults."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


model("swinir_m")(SwinIR)
model("swinir_l")(partial(SwinIR, width=180, depths=(6,) * 8))
model("swinir_tiny")(partial(SwinIR, width=24, depths=(2, 2), heads=4))
