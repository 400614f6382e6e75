"""Random convolutional networks: blocks of every kind that coupling has to see through."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
SIDE = {1: 12, 2: 6, 3: 4}

# A block takes (dims, channels, draw) and returns a module and its output channels.
Draw = Callable[[int, int], int]
Made = tuple[nn.Module, int]


class Lambda(nn.Module):
    """Modules by name and the function that uses them."""

    def __init__(self, function: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(dims: int, c: int, out: int, **options: int) -> nn.Module:
    return CONV[dims](c, out, 3, padding=1, **options)


def plain(dims: int, c: int, draw: Draw) -> Made:
    out = 4 * draw(1, 3)
    act = (nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.Sigmoid(), nn.PReLU(out))[draw(0, 4)]
    norm = BATCH_NORM[dims](out) if draw(0, 1) else nn.Identity()
    return nn.Sequential(conv(dims, c, out), norm, act), out


def residual(dims: int, c: int, draw: Draw) -> Made:
    inner, out = plain(dims, c, draw)
    back = conv(dims, out, c)
    if draw(0, 1):
        return Lambda(lambda s, x: x + s.back(s.inner(x)), inner=inner, back=back), c
    return Lambda(lambda s, x: s.back(s.inner(x)).add_(x), inner=inner, back=back), c


def concat(dims: int, c: int, draw: Draw) -> Made:
    inner, out = plain(dims, c, draw)
    return Lambda(lambda s, x: torch.cat([s.inner(x), x], 1), inner=inner), c + out


def halves(dims: int, c: int, draw: Draw) -> Made:
    a, b = conv(dims, c // 2, c // 2), conv(dims, c // 2, 4)
    if draw(0, 1):

        def c2f(s: nn.Module, x: Tensor) -> Tensor:
            first, second = x.chunk(2, 1)
            return torch.cat([first, second, second + s.a(second)], 1)

        return Lambda(c2f, a=a), c + c // 2

    def sides(s: nn.Module, x: Tensor) -> Tensor:
        first, second = torch.split(x, x.shape[1] // 2, 1)
        return torch.cat([s.a(first), s.b(second)], 1)

    return Lambda(sides, a=a, b=b), c // 2 + 4


def sliced(dims: int, c: int, draw: Draw) -> Made:
    a = conv(dims, c // 2, c // 2)

    def ghost(s: nn.Module, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return torch.cat([x[:, half:], s.a(x[:, :half])], 1)

    return Lambda(ghost, a=a), c


def shuffle(dims: int, c: int, draw: Draw) -> Made:
    def by_view(s: nn.Module, x: Tensor) -> Tensor:
        n, c, *rest = x.shape
        return s.after(x.view(n, 2, c // 2, *rest).transpose(1, 2).reshape(n, c, *rest))

    return Lambda(by_view, after=conv(dims, c, c)), c


def grouped(dims: int, c: int, draw: Draw) -> Made:
    groups = (2, 4)[draw(0, 1)]
    return nn.Sequential(conv(dims, c, 2 * c, groups=groups), nn.ReLU()), 2 * c


def depthwise(dims: int, c: int, draw: Draw) -> Made:
    times = draw(1, 2)
    out = 4 * draw(1, 3)
    return nn.Sequential(conv(dims, c, times * c, groups=c), CONV[dims](times * c, out, 1)), out


def transposed(dims: int, c: int, draw: Draw) -> Made:
    groups = draw(1, 2)
    return TRANSPOSED[dims](c, 8, 3, padding=1, groups=groups), 8


def squeeze(dims: int, c: int, draw: Draw) -> Made:
    def gate(s: nn.Module, x: Tensor) -> Tensor:
        mean = x.flatten(2).mean(2)
        scale = torch.sigmoid(s.up(torch.relu(s.down(mean))))
        return x * scale.view(*scale.shape, *[1] * (x.dim() - 2))

    return Lambda(gate, down=nn.Linear(c, 4), up=nn.Linear(4, c)), c


def mask(dims: int, c: int, draw: Draw) -> Made:
    return Lambda(lambda s, x: x * torch.sigmoid(s.one(x)), one=conv(dims, c, 1)), c


def shared(dims: int, c: int, draw: Draw) -> Made:
    return Lambda(lambda s, x: s.twice(torch.relu(s.twice(x))), twice=conv(dims, c, c)), c


def pixels(dims: int, c: int, draw: Draw) -> Made:
    if dims != 2:
        return plain(dims, c, draw)
    body = nn.Sequential(nn.PixelUnshuffle(2), conv(2, 4 * c, 16), nn.PixelShuffle(2))
    return body, 4


def group_norm(dims: int, c: int, draw: Draw) -> Made:
    return nn.Sequential(nn.GroupNorm(2, c), conv(dims, c, c)), c


def layer_norm(dims: int, c: int, draw: Draw) -> Made:
    return Lambda(lambda s, x: s.norm(x.movedim(1, -1)).movedim(-1, 1), norm=nn.LayerNorm(c)), c


def pool(dims: int, c: int, draw: Draw) -> Made:
    return POOL[dims](3, 1, 1), c


BLOCKS = (plain, residual, concat, halves, sliced, shuffle, grouped, depthwise, transposed, squeeze)
BLOCKS += (mask, shared, pixels, group_norm, layer_norm, pool)


class RandomNet(nn.Module):
    """A stem, some blocks, and a head with one or two outputs."""

    def __init__(self, dims: int, kinds: list[int], draw: Draw) -> None:
        super().__init__()
        channels = 4 * draw(1, 3)
        self.stem = conv(dims, 3, channels)
        self.blocks = nn.ModuleList()
        for kind in kinds:
            # Blocks may halve and group: keep the width a multiple of four and bounded.
            if channels % 4 or channels > 32:
                block, channels = conv(dims, channels, 8), 8
            else:
                block, channels = BLOCKS[kind](dims, channels, draw)
            self.blocks.append(block)
        self.flat = bool(draw(0, 1))
        self.head = nn.Linear(channels * SIDE[dims] ** dims if self.flat else channels, 3)
        self.side = conv(dims, channels, 2) if draw(0, 1) else None
        self.names = [BLOCKS[kind].__name__ for kind in kinds]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        features = x.flatten(1) if self.flat else x.flatten(2).mean(2)
        out = self.head(features)
        return out if self.side is None else (out, self.side(x))


@st.composite
def networks(draw: st.DrawFn) -> tuple[RandomNet, Tensor]:
    """A random network in eval mode with scrambled weights, and an example batch of two."""
    dims = draw(st.sampled_from((1, 2, 2, 2, 3)))
    kinds = draw(st.lists(st.integers(0, len(BLOCKS) - 1), min_size=1, max_size=5))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    net = RandomNet(dims, kinds, lambda low, high: draw(st.integers(low, high))).eval()
    return net, torch.randn(2, 3, *[SIDE[dims]] * dims)
