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

__all__ = ["DropPath", "SwinIR", "WindowAttention", "offsets_in_window"]

MEAN = (0.4488, 0.4371, 0.4040)  # of the red, green and blue of DIV2K in [0, 1]
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


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _Block(nn.Module):
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
        self.mlp = _Mlp(width, int(width * mlp_ratio))

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


class _Blocks(nn.Module):
    def __init__(self, blocks: Sequence[_Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class _ResidualGroup(nn.Module):
    """Blocks, a convolution behind them, and a way around all of it."""

    def __init__(self, width: int, blocks: Sequence[_Block]) -> None:
        super().__init__()
        self.residual_group = _Blocks(blocks)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.conv(self.residual_group(x, mask).permute(0, 3, 1, 2))
        return x + out.permute(0, 2, 3, 1)


class _Embedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return out


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
        self.patch_embed = _Embedding(width)
        blocks = sum(depths)
        rates = iter([drop_path * number / max(blocks - 1, 1) for number in range(blocks)])
        block = partial(_Block, width, heads=heads, window=window, mlp_ratio=mlp_ratio)
        self.layers = nn.ModuleList(
            _ResidualGroup(
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
        mask = _mask_of_shifted(deep.shape[1], deep.shape[2], self.window, deep)
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


def _windows(x: Tensor, window: int) -> Tensor:
    """Windows [N, h, w, P, C] of an image [N, H, W, C], row by row."""
    rows: Tensor = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return rows.transpose(2, 3).flatten(3, 4)


def _image(windows: Tensor, window: int) -> Tensor:
    """The image [N, H, W, C] that windows [N, h, w, P, C] are of."""
    rows: Tensor = windows.unflatten(3, (window, window))
    return rows.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _mask_of_shifted(height: int, width: int, window: int, like: Tensor) -> Tensor:
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


def _initialise_(module: nn.Module) -> None:
    """Linear layers as in Swin; norms and convolutions keep torch's defaults."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


model("swinir_m")(SwinIR)
model("swinir_l")(partial(SwinIR, width=180, depths=(6,) * 8))
model("swinir_tiny")(partial(SwinIR, width=24, depths=(2, 2), heads=4))
